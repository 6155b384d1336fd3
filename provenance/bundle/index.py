"""``run.json`` of a bundle: all that is known of a run beside its records' bytes.

FROZEN FORMAT, version 1. The JSON is indented by two with sorted keys and one newline at
the end, so that a reader can compare bytes; times are Unix seconds, hashes lower-case hex::

    {"version": 1, "run", "public_key", "state", "incomplete", "created_at", "sealed_at",
     "records":       [{"path", "kind", "epoch", "rank", "producer", "seq", "ts", "digest",
                        "withheld"}],
     "entries":       [{"index", "phase", "epoch", "root", "anchor", "created_at",
                        "coverage": {producer: number of events}}],
     "inclusions":    [{"index", "size", "proof"}],
     "consistencies": [{"old_size", "new_size", "proof"}],
     "heads":         [size], "receipts": [name],
     "anchors":       [{"network", "size", "root", "state", "transaction_id", "reason",
                        "height", "depth", "block_time"}],
     "equivocations": [{"producer", "seq", "digest", "seen_at", "withheld"}],
     "parked":        [{"id", "reason", "size", "parked_at"}]}

``withheld`` is true where the bundle keeps the bytes back on purpose: only the digest is here.
``coverage`` is empty except at checkpoints (:mod:`provenance.formats.run_tree.selection`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar
from uuid import UUID

from provenance.errors import FormatError, UnknownVersionError
from provenance.evidence.run_evidence import (
    AnchorFact,
    Consistency,
    Inclusion,
    ParkedFact,
    RecordFile,
    RunEvidence,
)
from provenance.formats import json_text
from provenance.formats.record import Kind, Phase, check_timestamp
from provenance.ports.values import AnchorState, Equivocation, LedgerEntry

VERSION: Final = 1
MAX_INTEGER: Final = 2**63 - 1
SAFE_PATH: Final = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}/){0,11}"
                              r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")  # fmt: skip
"""Relative, no empty part, none that begins with a dot, at most twelve deep."""

T = TypeVar("T")


def dump(document: Mapping[str, object]) -> bytes:
    """The bytes of ``run.json`` and ``manifest.json``."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=True).encode() + b"\n"


def load(data: bytes, name: str) -> Fields:
    """Read what :func:`dump` wrote, and nothing else.

    Raises:
        UnknownVersionError, FormatError: Naming the file.
    """
    try:
        raw: Any = json_text.loads(data)
        same = isinstance(raw, dict) and dump(raw) == data
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name}: is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise FormatError(f"{name}: is a JSON {type(raw).__name__}, expected an object")
    version = raw.get("version")
    if version != VERSION or isinstance(version, bool):
        raise UnknownVersionError(
            f"{name}: version {repr(version)[:40]}, this release has {VERSION}"
        )
    if not same:
        raise FormatError(f"{name}: is not as this program writes it (indented, sorted keys)")
    return Fields(raw, name)


@dataclass(frozen=True, slots=True)
class Fields:
    """One JSON object; every getter names file and key where the value is not as it must."""

    raw: Mapping[str, Any]
    where: str

    def refuse(self, key: str, expected: str) -> NoReturn:
        """Raise FormatError for a key."""
        found = "nothing" if key not in self.raw else repr(self.raw[key])[:60]
        raise FormatError(f"{self.where}: {key}: found {found}, expected {expected}")

    def only(self, *keys: str) -> Fields:
        """Refuse all other keys; these fields."""
        extra = sorted(self.raw.keys() - set(keys))
        if extra:
            raise FormatError(f"{self.where}: {extra[0][:60]}: unknown key")
        return self

    def uuid(self, key: str) -> UUID:
        """A UUID as this program writes it: lower case, with hyphens."""
        value = self.one_of(key, UUID)
        return value if str(value) == self.raw[key] else self.refuse(key, f"{value}")

    def text(self, key: str) -> str:
        """A string."""
        value = self.raw.get(key)
        return value if isinstance(value, str) else self.refuse(key, "text")

    def integer(self, key: str) -> int:
        """0 to 2^63 - 1."""
        value = self.raw.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_INTEGER:
            self.refuse(key, "a whole number from 0")
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.raw.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e18:
            self.refuse(key, "a number")
        return value

    def boolean(self, key: str) -> bool:
        """true or false."""
        value = self.raw.get(key)
        return value if isinstance(value, bool) else self.refuse(key, "true or false")

    def maybe(self, key: str, read: Callable[[str], T]) -> T | None:
        """null, or what ``read`` reads."""
        if key in self.raw and self.raw[key] is None:
            return None
        return read(key)

    def hex(self, key: str, size: int) -> bytes:
        """Lower-case hex of ``size`` bytes."""
        return self._hex(self.raw.get(key), key, size)

    def _hex(self, value: object, key: str, size: int) -> bytes:
        if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", value):
            self.refuse(key, f"{2 * size} lower-case hex digits")
        return bytes.fromhex(value)

    def one_of(self, key: str, kind: Callable[[str], T]) -> T:
        """A value of an enumeration."""
        try:
            return kind(self.text(key))
        except ValueError:
            self.refuse(key, "a known value")

    def path(self, key: str) -> str:
        """A relative path without dots to climb on."""
        value = self.text(key)
        return value if SAFE_PATH.fullmatch(value) else self.refuse(key, "a safe relative path")

    def list(self, key: str) -> Sequence[Any]:
        """A list of anything."""
        value = self.raw.get(key)
        return value if isinstance(value, list) else self.refuse(key, "a list")

    def hashes(self, key: str) -> tuple[bytes, ...]:
        """A list of 32-byte hashes."""
        return tuple(self._hex(value, key, 32) for value in self.list(key))

    def counts(self, key: str, size: int) -> tuple[tuple[bytes, int], ...]:
        """An object of whole numbers from 0 by hex of ``size`` bytes, in order."""
        value = self.raw.get(key)
        if not isinstance(value, dict):
            self.refuse(key, "an object")
        inner = Fields(value, f"{self.where}: {key}")
        found = [(self._hex(name, key, size), inner.integer(name)) for name in value]
        return tuple(sorted(found))

    def objects(self, key: str, *keys: str) -> Sequence[Fields]:
        """A list of objects that have no other keys than these."""
        found = []
        for at, value in enumerate(self.list(key)):
            if not isinstance(value, dict):
                self.refuse(key, "a list of objects")
            found.append(Fields(value, f"{self.where}: {key}[{at}]").only(*keys))
        return found


def encode(evidence: RunEvidence) -> bytes:
    """The bytes of ``run.json``."""
    return dump(
        {
            "version": VERSION,
            "run": str(evidence.run),
            "public_key": evidence.public_key.hex(),
            "state": evidence.state,
            "incomplete": evidence.incomplete,
            "created_at": evidence.created_at,
            "sealed_at": evidence.sealed_at,
            "records": [
                {
                    "path": record.path,
                    "kind": record.kind.value,
                    "epoch": record.epoch,
                    "rank": record.rank,
                    "producer": record.producer.hex(),
                    "seq": record.seq,
                    "ts": record.ts,
                    "digest": record.digest.hex(),
                    "withheld": record.withheld,
                }
                for record in evidence.records
            ],
            "entries": [
                {
                    "index": entry.index,
                    "phase": entry.phase.value,
                    "epoch": entry.epoch,
                    "root": entry.root.hex(),
                    "anchor": entry.anchor,
                    "created_at": entry.created_at,
                    "coverage": {producer.hex(): n for producer, n in entry.coverage},
                }
                for entry in evidence.entries
            ],
            "inclusions": [
                {"index": item.index, "size": item.size, "proof": [p.hex() for p in item.proof]}
                for item in evidence.inclusions
            ],
            "consistencies": [
                {
                    "old_size": item.old_size,
                    "new_size": item.new_size,
                    "proof": [p.hex() for p in item.proof],
                }
                for item in evidence.consistencies
            ],
            "heads": [head.size for head in evidence.heads],
            "receipts": [receipt.name for receipt in evidence.receipts],
            "anchors": [
                {
                    "network": anchor.network,
                    "size": anchor.size,
                    "root": anchor.root.hex(),
                    "state": anchor.state.value,
                    "transaction_id": anchor.transaction_id,
                    "reason": anchor.reason,
                    "height": anchor.height,
                    "depth": anchor.depth,
                    "block_time": anchor.block_time,
                }
                for anchor in evidence.anchors
            ],
            "equivocations": [
                {
                    "producer": other.producer.hex(),
                    "seq": other.seq,
                    "digest": other.digest.hex(),
                    "seen_at": other.seen_at,
                    "withheld": not other.data,
                }
                for other in evidence.equivocations
            ],
            "parked": [
                {
                    "id": parked.id,
                    "reason": parked.reason,
                    "size": parked.size,
                    "parked_at": parked.parked_at,
                }
                for parked in evidence.parked
            ],
        }
    )


@dataclass(frozen=True, slots=True)
class RunFile:
    """What ``run.json`` says. Records come without bytes, equivocations without theirs.

    Attributes:
        kept_back: For each equivocation whether it is withheld.
    """

    run: UUID
    public_key: bytes
    state: str
    incomplete: str | None
    created_at: float
    sealed_at: float | None
    records: tuple[RecordFile, ...]
    entries: tuple[LedgerEntry, ...]
    inclusions: tuple[Inclusion, ...]
    consistencies: tuple[Consistency, ...]
    heads: tuple[int, ...]
    receipts: tuple[str, ...]
    anchors: tuple[AnchorFact, ...]
    equivocations: tuple[Equivocation, ...]
    kept_back: tuple[bool, ...]
    parked: tuple[ParkedFact, ...]


def decode(data: bytes, name: str = "run.json") -> RunFile:
    """Read the bytes of ``run.json``.

    Raises:
        UnknownVersionError, FormatError: Naming file and key.
    """
    top = load(data, name).only(*_TOP)
    run = top.uuid("run")
    entries = _unique(top, "entries", "index", *_ENTRY)
    indexes = [item.integer("index") for item in entries]
    if indexes != sorted(indexes):
        top.refuse("entries", "items by ledger index")
    equivocations = top.objects("equivocations", *_EQUIVOCATION)
    return RunFile(
        run=run,
        public_key=top.hex("public_key", 32),
        state=top.text("state"),
        incomplete=top.maybe("incomplete", top.text),
        created_at=top.number("created_at"),
        sealed_at=top.maybe("sealed_at", top.number),
        records=tuple(_record(item) for item in _unique(top, "records", "path", *_RECORD)),
        entries=tuple(_entry(item, run) for item in entries),
        inclusions=tuple(
            Inclusion(item.integer("index"), item.integer("size"), item.hashes("proof"))
            for item in top.objects("inclusions", "index", "size", "proof")
        ),
        consistencies=tuple(
            Consistency(item.integer("old_size"), item.integer("new_size"), item.hashes("proof"))
            for item in top.objects("consistencies", "old_size", "new_size", "proof")
        ),
        heads=tuple(Fields({"heads": value}, name).integer("heads") for value in top.list("heads")),
        receipts=tuple(
            Fields({"receipts": value}, name).path("receipts") for value in top.list("receipts")
        ),
        anchors=tuple(_anchor(item) for item in top.objects("anchors", *_ANCHOR)),
        equivocations=tuple(
            Equivocation(
                run,
                item.hex("producer", 16),
                item.integer("seq"),
                item.hex("digest", 32),
                b"",
                item.number("seen_at"),
            )
            for item in equivocations
        ),
        kept_back=tuple(item.boolean("withheld") for item in equivocations),
        parked=tuple(
            ParkedFact(
                item.text("id"), item.text("reason"), item.integer("size"), item.number("parked_at")
            )
            for item in top.objects("parked", "id", "reason", "size", "parked_at")
        ),
    )


_RECORD: Final = (
    *("path", "kind", "epoch", "rank", "producer", "seq", "ts"),
    *("digest", "withheld"),
)
_ENTRY: Final = ("index", "phase", "epoch", "root", "anchor", "created_at", "coverage")
_ANCHOR: Final = (
    *("network", "size", "root", "state", "transaction_id", "reason"),
    *("height", "depth", "block_time"),
)
_EQUIVOCATION: Final = ("producer", "seq", "digest", "seen_at", "withheld")
_TOP: Final = (
    *("version", "run", "public_key", "state", "incomplete", "created_at", "sealed_at"),
    *("records", "entries", "inclusions", "consistencies", "heads", "receipts"),
    *("anchors", "equivocations", "parked"),
)


def _unique(top: Fields, key: str, by: str, *keys: str) -> Sequence[Fields]:
    items = top.objects(key, *keys)
    seen = [item.raw.get(by) for item in items]
    if len({repr(value) for value in seen}) != len(seen):
        raise FormatError(f"{top.where}: {key}: two items with the same {by}")
    return items


def _record(item: Fields) -> RecordFile:
    if item.boolean("withheld"):
        check_timestamp(item.text("ts"), item.where)  # No bytes will be held against it.
    return RecordFile(
        path=item.path("path"),
        kind=item.one_of("kind", Kind),
        epoch=item.maybe("epoch", item.integer),
        rank=item.integer("rank"),
        producer=item.hex("producer", 16),
        seq=item.integer("seq"),
        ts=item.text("ts"),
        digest=item.hex("digest", 32),
        data=None,
        withheld=item.boolean("withheld"),
    )


def _entry(item: Fields, run: UUID) -> LedgerEntry:
    phase, epoch = item.one_of("phase", Phase), item.maybe("epoch", item.integer)
    if (phase is Phase.CHECKPOINT) != (epoch is not None):
        item.refuse("epoch", "a whole number at a checkpoint, else null")
    coverage = item.counts("coverage", 16)
    if coverage and phase is not Phase.CHECKPOINT:
        item.refuse("coverage", "{}, only a checkpoint has one")
    return LedgerEntry(
        item.integer("index"),
        run,
        phase,
        epoch,
        item.hex("root", 32),
        item.boolean("anchor"),
        item.number("created_at"),
        coverage,
    )


def _anchor(item: Fields) -> AnchorFact:
    return AnchorFact(
        network=item.path("network"),
        size=item.integer("size"),
        root=item.hex("root", 32),
        state=item.one_of("state", AnchorState),
        transaction_id=item.maybe("transaction_id", item.text),
        reason=item.maybe("reason", item.text),
        height=item.maybe("height", item.integer),
        depth=item.integer("depth"),
        block_time=item.maybe("block_time", item.number),
    )
