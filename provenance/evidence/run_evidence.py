"""What there is to verify about one run, gathered from a database or read from a bundle.

Values only: nothing here is believed. :mod:`provenance.verify.verifier` checks it.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, Final, Literal
from uuid import UUID

from provenance.errors import FormatError, InputError
from provenance.evidence.ledger_claim import LedgerClaim
from provenance.formats import json_text
from provenance.formats.checkpoint import SignedHead, parse_note
from provenance.formats.fields import Fields, Key
from provenance.formats.producers.statement import Statement
from provenance.formats.receipt import Receipt
from provenance.formats.record import Kind, Phase, Record
from provenance.formats.run_tree.selection import FREE_KINDS, DigestedRecord
from provenance.ports.values import AnchorState, Equivocation, LedgerEntry

_HEX: Final = re.compile(r"(?:[0-9a-f]{2})+")
_INDEXED: Final = ("kind", "epoch", "rank", "producer", "seq", "ts")
_indexed: Final = attrgetter(*_INDEXED)


@dataclass(frozen=True)
class RecordFile:
    """One record, with what the database or the bundle's index says of it.

    Attributes:
        path: Its place: a path of the run tree at the newest seal, or ``control/...``,
            ``late/...`` or ``unsealed/...`` followed by producer and sequence number.
        kind, epoch, rank, producer, seq, ts: As indexed; the bytes must agree.
        digest: As stored, 32 bytes; the SHA-256 of ``data`` must agree.
        data: Canonical bytes; None where they are missing or withheld.
        withheld: The bundle keeps the bytes back and says so; the digest stands for them.
    """

    path: str
    kind: Kind
    epoch: int | None
    rank: int
    producer: bytes
    seq: int
    ts: str
    digest: bytes
    data: bytes | None = field(repr=False)
    withheld: bool = False

    @property
    def place(self) -> str:
        """``tree``, ``control``, ``late`` or ``unsealed``."""
        top = self.path.partition("/")[0]
        return top if top in ("control", "late", "unsealed") else "tree"

    @property
    def file(self) -> str:
        """Where the bytes lie in a bundle."""
        return f"records/{self.path}.json"

    @cached_property
    def decoded(self) -> Record | FormatError:
        """The record that the bytes are, or why they are none."""
        try:
            return Record.decode(self.data or b"")
        except FormatError as error:
            return error.with_traceback(None)

    def filed(self, path: str, ts: str) -> RecordFile:
        """The same bytes under another path and time; they are not decoded again."""
        record = object.__new__(RecordFile)  # a tenth of what replace() costs
        vars(record).update(vars(self), path=path, ts=ts)
        return record

    def differing_field(self, record: Record) -> str | None:
        """The first indexed field that a record states otherwise; None where they agree."""
        if _indexed(record) == _indexed(self):
            return None
        return next(n for n in _INDEXED if getattr(record, n) != getattr(self, n))

    def digested(self, run: UUID) -> DigestedRecord:
        """The record with its stored digest, as it is indexed.

        Where the bytes do not decode, the index stands in for them, so that the rest of the
        tree can still be checked.
        """
        record = self.decoded
        if isinstance(record, FormatError):
            body = lenient(self.data).get("body")
            body = body if isinstance(body, dict) else {}
            record = Record(run=run, salt=bytes(32), body=body, **self._own())
        elif self.differing_field(record) is not None:
            record = replace(record, **self._own())
        return DigestedRecord(record, self.digest)

    def _own(self) -> dict[str, Any]:
        return dict(zip(_INDEXED, _indexed(self), strict=True))


@dataclass(frozen=True, slots=True)
class Inclusion:
    """RFC 9162 inclusion proof of ledger entry ``index`` in the ledger at ``size``."""

    index: int
    size: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Consistency:
    """RFC 9162 consistency proof between the ledger at two sizes."""

    old_size: int
    new_size: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class HeadNote:
    """A signed head (tlog-checkpoint) as text, and the size it is filed under."""

    size: int
    note: str


@dataclass(frozen=True)
class ReceiptFile:
    """A receipt's bytes and its name, such as ``after-ethereum``."""

    name: str
    data: bytes = field(repr=False)

    @cached_property
    def decoded(self) -> Receipt | FormatError:
        """The receipt that the bytes are, or why they are none."""
        try:
            return Receipt.decode(self.data)
        except FormatError as error:
            return error.with_traceback(None)

    @property
    def file(self) -> str:
        """Where the bytes lie in a bundle."""
        return f"receipts/{self.name}.json"


@dataclass(frozen=True, slots=True)
class AnchorFact:
    """What the outbox says of an anchor that covers an entry of the run."""

    network: str
    size: int
    root: bytes
    state: AnchorState
    transaction_id: str | None
    reason: str | None
    height: int | None
    depth: int
    block_time: float | None


@dataclass(frozen=True, slots=True)
class SignedProducer:
    """What a producer signed, and by which key.

    Attributes:
        producer: 16 bytes.
        certificate: Of its key, by the run's; as it came, not checked yet.
        statements: Over its records, by count.
    """

    producer: bytes
    certificate: bytes
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class ParkedFact:
    """Something ingest refused: SHA-256 of the payload as hex, why, and how large it was."""

    id: str
    reason: str
    size: int
    parked_at: float


@dataclass(frozen=True, slots=True)
class EvidenceProblem:
    """Something wrong with the evidence itself, found while it was read."""

    file: str
    message: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where evidence comes from."""

    kind: Literal["database", "bundle"]
    where: str


@dataclass(frozen=True)
class RunEvidence:
    """All there is about one run.

    Attributes:
        identity: The 97 bytes by which somebody stands behind the run; None if nobody does.
        producers: By their 16 bytes.
        attachments: What a bundle brings for other people's tools, by file: bytes that are
            derived from the rest (:mod:`provenance.bundle.attachments`).
        ledger: What the ledger says of all its runs; not evidence.
        parent: Weights of the run that this one says it continues, or why they cannot be read; None
            where nobody has them.
    """

    run: UUID
    public_key: bytes
    identity: bytes | None
    state: str
    incomplete: str | None
    created_at: float
    sealed_at: float | None
    producers: tuple[SignedProducer, ...]
    records: tuple[RecordFile, ...]
    entries: tuple[LedgerEntry, ...]
    inclusions: tuple[Inclusion, ...]
    consistencies: tuple[Consistency, ...]
    heads: tuple[HeadNote, ...]
    vkey: str | None
    receipts: tuple[ReceiptFile, ...]
    anchors: tuple[AnchorFact, ...]
    equivocations: tuple[Equivocation, ...]
    parked: tuple[ParkedFact, ...]
    problems: tuple[EvidenceProblem, ...]
    source: Source
    attachments: Mapping[str, bytes] = field(default_factory=dict)
    ledger: LedgerClaim = field(default_factory=LedgerClaim)
    parent: Sequence[Record] | str | None = field(default=None, repr=False)

    @cached_property
    def digested(self) -> Sequence[DigestedRecord]:
        """The records, each with the digest that stands for it."""
        return [record.digested(self.run) for record in self.records]

    @cached_property
    def under_no_root(self) -> Sequence[RecordFile]:
        """Leaves that no seal has yet; a checkpoint holds the steps, artifacts and notes that it
        covers by the chains of their producers (docs/FORMAT.md, 5.1)."""
        covered: dict[bytes, int] = {}
        for entry in self.entries:
            for producer, count in entry.coverage if entry.phase is Phase.CHECKPOINT else ():
                covered[producer] = max(count, covered.get(producer, 0))
        return [
            item
            for item in self.records
            if item.place == "unsealed"
            and not (item.kind in FREE_KINDS and item.seq < covered.get(item.producer, 0))
        ]

    def file(self, name: str) -> str | None:
        """``name`` where the evidence lies in files."""
        return name if self.source.kind == "bundle" else None

    def signed_heads(self) -> dict[int, SignedHead]:
        """Heads whose notes parse, by the size they are filed under; no signature is checked."""
        heads = {}
        for item in self.heads:
            try:
                heads[item.size] = parse_note(item.note)
            except (FormatError, InputError):
                continue
        return heads

    def head_origin(self) -> str | None:
        """The ledger's name as the last of its heads states it; None without one that parses."""
        signed = list(self.signed_heads().values())
        return signed[-1].head.origin if signed else None

    def receipts_of(self, network: str) -> list[Receipt]:
        """A network's receipts that decode, smallest head first; nothing else is checked."""
        receipts = [r for file in self.receipts if isinstance(r := file.decoded, Receipt)]
        chosen = [receipt for receipt in receipts if receipt.anchor.network == network]
        return sorted(chosen, key=lambda receipt: receipt.ledger.size)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's cyclic collector: records make no cycles, and looking for some among all
    of a long run costs a quarter of reading or verifying it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def seal_label(entry: LedgerEntry) -> str:
    """``before``, ``checkpoint-10`` or ``after``."""
    return entry.phase.value if entry.epoch is None else f"{entry.phase.value}-{entry.epoch}"


def receipt_name(label: str, network: str, size: int | None = None) -> str:
    """``after-ethereum``; with the size of its head where a seal has several of one network."""
    return f"{label}-{network}" if size is None else f"{label}-{network}-{size}"


def evidence_bytes(evidence: Fields, key: Key) -> bytes:
    """A field of a receipt's evidence, from lower-case hex. Raises FormatError: it is missing,
    empty or something else."""
    return bytes.fromhex(evidence.matching(key, _HEX, "lower-case hex"))


def lenient(data: bytes | None) -> dict[str, Any]:
    """The JSON object in bytes that may not be a record; empty where there is none."""
    try:
        raw = json_text.loads(data or b"")
    except (ValueError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}
