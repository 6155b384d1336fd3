"""``run.json`` of a bundle: all that is known of a run beside its records' bytes.

FROZEN FORMAT, version 1: docs/FORMAT.md, section 9.2, and docs/schemas/run.json. The JSON has
sorted keys, no spaces, each key of the document and each item of its lists on a line of its own,
and one newline at the end, so that a reader can compare bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import compress
from typing import Any, Final, TypeVar

from provenance.errors import FormatError
from provenance.evidence import ledger_claim, run_evidence
from provenance.formats.fields import Fields, Key
from provenance.formats.json_text import Limits
from provenance.formats.producers.batch import MAX_RANGE_BYTES
from provenance.formats.producers.certificate import (
    CERTIFICATE_BYTES,
    IDENTITY_BYTES,
    MAX_IDENTITY_BYTES,
)
from provenance.formats.producers.statement import Statement
from provenance.formats.record import Kind, Phase, check_timestamp
from provenance.log import shown
from provenance.ports.values import AnchorState, Equivocation, LedgerEntry

VERSION: Final = 1
MAX_TEXT_CHARS: Final = 2000
"""Of a text that says why; a longer one is cut when the bundle is written."""
SAFE_PATH: Final = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}/){0,11}"
                              r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")  # fmt: skip
"""Relative, no empty part, none that begins with a dot, at most twelve deep."""

T = TypeVar("T")
_encode: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


def dump(document: Mapping[str, object]) -> bytes:
    """The bytes of ``run.json`` and ``manifest.json``."""
    return "".join(_pieces(document)).encode()


def _pieces(document: Mapping[str, object]) -> Iterator[str]:
    """A key or the item of a list on each line."""
    start = "{\n"
    for key, value in sorted(document.items()):
        yield f"{start}{_encode(key)}:"
        if isinstance(value, list) and value:
            yield from (f"{',' if at else '['}\n{_encode(item)}" for at, item in enumerate(value))
            yield "\n]"
        else:
            yield _encode(value)
        start = ",\n"
    yield "\n}\n"


def _is_dump(document: Mapping[str, object], data: bytes) -> bool:
    """Whether the bytes are :func:`dump`'s, which are not made a second time."""
    at = 0
    for text in _pieces(document):
        piece = text.encode()
        if not data.startswith(piece, at):
            return False
        at += len(piece)
    return len(data) == at


def load(data: bytes, name: str, *keys: str) -> Fields:
    """Read what :func:`dump` wrote, with no keys but these and ``version``; or ``FormatError``."""
    # The shortest items, such as an entry in a proof, have 60 bytes, and a value 16.
    limits = Limits(len(data) // 32 + 4096, len(data) // 16 + 2**18)
    fields = Fields.parse(data, name, limits=limits)
    fields.version(VERSION, "version")
    if not _is_dump(fields.raw, data):
        raise FormatError(f"{name}: is not as this program writes it (sorted keys, lines)")
    return fields.only("version", *keys)


def read_path(fields: Fields, key: Key) -> str:
    """A field that is a relative path without dots to climb on."""
    return fields.matching(key, SAFE_PATH, "a safe relative path")


def sums(digests: Mapping[str, str]) -> bytes:
    """The bytes of SHA256SUMS: SHA-256 as hex by file name."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()


def roots_of(evidence: run_evidence.RunEvidence) -> dict[str, str]:
    """Run root as hex by seal: ``roots`` of the manifest."""
    return {run_evidence.seal_label(entry): entry.root.hex() for entry in evidence.entries}


def equivocation_file(other: Equivocation) -> str:
    """The path of an equivocation's bytes."""
    return f"equivocations/{other.producer.hex()}-{other.seq}-{other.digest.hex()[:16]}.json"


@dataclass(frozen=True, slots=True)
class _Field:
    """How one field is read from JSON, and its value of an item is written."""

    read: Callable[[Fields, Key], Any]
    write: Callable[[Any], Any] = lambda value: value
    of: Callable[[Any, str], Any] = getattr


_Schema = Mapping[str, _Field]


def _hex(size: int) -> _Field:
    return _Field(lambda fields, key: fields.hex(key, size), bytes.hex)


def _enum(kind: type[Enum]) -> _Field:
    return _Field(lambda fields, key: fields.enum(key, kind), lambda member: member.value)


def _bytes(least: int, most: int) -> _Field:
    pattern = re.compile(f"(?:[0-9a-f]{{2}}){{{least},{most}}}")
    expected = f"{least} to {most} bytes in lower-case hex"
    return _Field(
        lambda fields, key: bytes.fromhex(fields.matching(key, pattern, expected)), bytes.hex
    )


def _nullable(field: _Field) -> _Field:
    return _Field(
        lambda fields, key: fields.maybe(key, lambda key: field.read(fields, key)),
        lambda value: None if value is None else field.write(value),
    )


def _list(item: _Field) -> _Field:
    return _Field(
        lambda fields, key: fields.items(key, item.read),
        lambda values: [item.write(value) for value in values],
    )


def _objects(
    schema: _Schema,
    check: Callable[[Fields, dict[str, Any]], None] = lambda fields, values: None,
    unique: str | None = None,
) -> _Field:
    """A list of objects, no two with the same ``unique``."""

    def read_one(fields: Fields, key: Key) -> dict[str, Any]:
        inner = fields.object(key, *schema)
        values = _read(inner, schema)
        check(inner, values)
        return values

    def read(fields: Fields, key: Key) -> tuple[dict[str, Any], ...]:
        items = fields.items(key, read_one)
        if unique is not None and len({item[unique] for item in items}) != len(items):
            raise FormatError(f"{fields.file}: {key}: two items with the same {unique}")
        return items

    return _Field(read, lambda items: [_write(item, schema) for item in items])


def _read(fields: Fields, schema: _Schema) -> dict[str, Any]:
    return {key: field.read(fields, key) for key, field in schema.items()}


def _write(item: object, schema: _Schema) -> dict[str, Any]:
    return {key: field.write(field.of(item, key)) for key, field in schema.items()}


def _read_text(fields: Fields, key: Key) -> str:
    text = fields.text(key)
    if len(text) > MAX_TEXT_CHARS or shown(text) != text:
        fields.refuse(key, f"at most {MAX_TEXT_CHARS} printable characters")
    return text


def _read_coverage(fields: Fields, key: Key) -> tuple[tuple[bytes, int], ...]:
    counts = fields.by_hex(key, 16, lambda inner, name: inner.integer(name, 1))
    return tuple(sorted(counts.items()))


def _check_record(fields: Fields, record: dict[str, Any]) -> None:
    if record["withheld"]:  # There are no bytes to compare it with.
        check_timestamp(record["ts"], f"{fields.file}: {fields.path}")


def _check_entry(fields: Fields, entry: dict[str, Any]) -> None:
    if (entry["phase"] is Phase.CHECKPOINT) != (entry["epoch"] is not None):
        fields.refuse("epoch", "a whole number at a checkpoint, else null")


_TEXT: Final = _Field(_read_text, lambda text: shown(text)[:MAX_TEXT_CHARS])
_INTEGER: Final = _Field(Fields.integer)
_COUNT: Final = _Field(lambda fields, key: fields.integer(key, 1))
_NUMBER: Final = _Field(Fields.number)
_BOOLEAN: Final = _Field(Fields.boolean)
_PATH: Final = _Field(read_path)
_PROOF: Final = _list(_hex(32))
_RECORD: Final[_Schema] = {
    "path": _PATH,
    "kind": _enum(Kind),
    "epoch": _nullable(_INTEGER),
    "rank": _INTEGER,
    "producer": _hex(16),
    "seq": _INTEGER,
    "ts": _TEXT,
    "digest": _hex(32),
    "withheld": _BOOLEAN,
}
_ENTRY: Final[_Schema] = {
    "index": _INTEGER,
    "phase": _enum(Phase),
    "epoch": _nullable(_INTEGER),
    "root": _hex(32),
    "anchor": _BOOLEAN,
    "created_at": _NUMBER,
    "coverage": _Field(_read_coverage, lambda pairs: {p.hex(): n for p, n in pairs}),
}
_ANCHOR: Final[_Schema] = {
    "network": _PATH,
    "size": _INTEGER,
    "root": _hex(32),
    "state": _enum(AnchorState),
    "transaction_id": _nullable(_TEXT),
    "reason": _nullable(_TEXT),
    "height": _nullable(_INTEGER),
    "depth": _INTEGER,
    "block_time": _nullable(_NUMBER),
}
_EQUIVOCATION: Final[_Schema] = {
    "producer": _hex(16),
    "seq": _INTEGER,
    "digest": _hex(32),
    "seen_at": _NUMBER,
    "proof": _bytes(1, MAX_RANGE_BYTES),
    "withheld": _Field(Fields.boolean, of=lambda item, _: not item.data),
}
_PRODUCER: Final[_Schema] = {
    "producer": _hex(16),
    "certificate": _hex(CERTIFICATE_BYTES),
    "statements": _objects({"count": _COUNT, "signature": _hex(64)}, unique="count"),
}
_RUN: Final[_Schema] = {
    "run": _Field(Fields.uuid, str),
    "public_key": _hex(32),
    "identity": _nullable(_bytes(IDENTITY_BYTES, MAX_IDENTITY_BYTES)),
    "state": _TEXT,
    "incomplete": _nullable(_TEXT),
    "created_at": _NUMBER,
    "sealed_at": _nullable(_NUMBER),
    "producers": _objects(_PRODUCER, unique="producer"),
    "records": _objects(_RECORD, _check_record, unique="path"),
    "entries": _objects(_ENTRY, _check_entry, unique="index"),
    "inclusions": _objects({"index": _INTEGER, "size": _INTEGER, "proof": _PROOF}),
    "consistencies": _objects({"old_size": _INTEGER, "new_size": _INTEGER, "proof": _PROOF}),
    "heads": _list(_Field(Fields.integer, lambda head: head.size)),
    "receipts": _list(_Field(read_path, lambda receipt: receipt.name)),
    "anchors": _objects(_ANCHOR),
    "equivocations": _objects(_EQUIVOCATION),
    "parked": _objects({"id": _TEXT, "reason": _TEXT, "size": _INTEGER, "parked_at": _NUMBER}),
    "ledger": _Field(ledger_claim.read, ledger_claim.LedgerClaim.as_json),
}


def encode(evidence: run_evidence.RunEvidence) -> bytes:
    """The bytes of ``run.json``."""
    return dump({"version": VERSION, **_write(evidence, _RUN)})


def decode(
    data: bytes, name: str = "run.json"
) -> tuple[run_evidence.RunEvidence, frozenset[Equivocation]]:
    """The evidence in ``run.json`` without the bytes of any other file, and the equivocations whose
    bytes the bundle withholds; or ``FormatError`` naming file and key."""
    fields = load(data, name, *_RUN)
    values = _read(fields, _RUN)
    indexes = [entry["index"] for entry in values["entries"]]
    if indexes != sorted(indexes):
        fields.refuse("entries", "items by ledger index")

    def items(key: str, make: Callable[..., T], **given: object) -> tuple[T, ...]:
        return tuple(make(**value, **given) for value in values[key])

    run = values["run"]
    withheld = [item.pop("withheld") for item in values["equivocations"]]
    for item in values["producers"]:
        stated = (Statement(item["producer"], **each) for each in item["statements"])
        item["statements"] = tuple(stated)
    values |= {
        "producers": items("producers", run_evidence.SignedProducer),
        "records": items("records", run_evidence.RecordFile, data=None),
        "entries": items("entries", LedgerEntry, run=run),
        "inclusions": items("inclusions", run_evidence.Inclusion),
        "consistencies": items("consistencies", run_evidence.Consistency),
        "heads": tuple(run_evidence.HeadNote(size, "") for size in values["heads"]),
        "receipts": tuple(run_evidence.ReceiptFile(name, b"") for name in values["receipts"]),
        "anchors": items("anchors", run_evidence.AnchorFact),
        "equivocations": items("equivocations", Equivocation, run=run, data=b""),
        "parked": items("parked", run_evidence.ParkedFact),
    }
    evidence = run_evidence.RunEvidence(
        **values, vkey=None, problems=(), source=run_evidence.Source("bundle", "")
    )
    return evidence, frozenset(compress(evidence.equivocations, withheld))
