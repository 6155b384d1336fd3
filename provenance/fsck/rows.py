"""Rows of the database as the checker has them; times are Unix seconds, hashes bytes.

msgspec holds each row against its class, whose fields are the columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import UUID

import msgspec

from provenance.formats.event import Event, SegmentHeader
from provenance.formats.producers.acknowledgement import Acknowledgement
from provenance.formats.record import Phase

Row: TypeAlias = msgspec.Struct


class Run(Row, frozen=True):
    """A row of ``runs``."""

    run: UUID
    public_key: bytes
    identity: bytes | None
    state: str
    incomplete: str | None


class ProducerRow(Row, frozen=True):
    """A row of ``producers``."""

    run: UUID
    producer: bytes
    rank: int
    certificate: bytes
    contiguous: int
    chain: bytes
    highest: int
    ended: int | None
    end_state: str | None
    marked: int


class StatementRow(Row, frozen=True):
    """A row of ``statements``."""

    run: UUID
    producer: bytes
    count: int
    signature: bytes


class RecordRow(Row, frozen=True):
    """A row of ``records``."""

    run: UUID
    producer: bytes
    seq: int
    kind: str
    epoch: int | None
    rank: int
    ts: str
    digest: bytes
    data: bytes
    chain: bytes | None


class ArchivedRow(Row, frozen=True):
    """A row of ``archived_runs``."""

    run: UUID
    digest: bytes
    size: int
    records: int


class MarkRow(Row, frozen=True):
    """A row of ``marks``."""

    phase: Phase
    epoch: int | None
    producer: bytes
    seq: int
    rank: int
    anchor: bool
    ts: str
    counts: bool


class DueRow(Row, frozen=True):
    """A row of ``due_checkpoints``."""

    epoch: int


class WeightsRow(Row, frozen=True):
    """A row of ``epoch_weights``."""

    epoch: int
    root: bytes


class TreeRow(Row, frozen=True):
    """A row of ``run_trees``."""

    leader: bytes
    leader_ts: str
    leader_seq: int
    world_size: int
    data: bytes
    model: bytes
    training: bytes
    closed: int


class EquivocationRow(Row, frozen=True):
    """A row of ``equivocations``."""

    run: UUID
    producer: bytes
    seq: int
    digest: bytes
    proof: bytes


class ParkedRow(Row, frozen=True):
    """A row of ``parked``; ``run`` None where the payload names none."""

    id: str
    run: UUID | None
    reason: str


class ParkedBytes(Row, frozen=True):
    """The payload of a row of ``parked``: a batch, a record, or anything."""

    payload: bytes


class Entry(Row, frozen=True):
    """A row of ``ledger_entries`` that is a seal."""

    index: int
    run: UUID
    phase: Phase
    epoch: int | None
    root: bytes
    anchor: bool
    coverage: tuple[tuple[bytes, int], ...] = ()


class LeafRow(Row, frozen=True):
    """Any row of ``ledger_entries``: of a seal, or of an outcome."""

    index: int
    root: bytes


class OutcomeRow(Row, frozen=True):
    """A row of ``ledger_entries`` that is no seal, with what ``outcomes`` has for it."""

    index: int
    run: UUID
    epoch: int | None
    root: bytes
    document: bytes | None


class SubtreeRow(Row, frozen=True):
    """A row of ``subtrees``; ``node`` counts all nodes from left to right."""

    node: int
    hash: bytes


class HeadRow(Row, frozen=True):
    """A row of ``heads``."""

    size: int
    root: bytes
    note: str
    frontier: bytes
    cosigned: bool

    @property
    def name(self) -> str:
        """As findings name it."""
        return f"head {self.size}"


class Anchor(Row, frozen=True):
    """A row of ``anchors``; times in Unix seconds."""

    id: int
    network: str
    size: int
    root: bytes
    state: str
    next_attempt_at: float
    lease_owner: str | None
    lease_until: float | None
    reason: str | None
    version_id: int | None

    @property
    def name(self) -> str:
        """As findings name it."""
        return f"{self.network} head {self.size}"


class Version(Row, frozen=True):
    """A row of ``anchor_versions``."""

    id: int
    anchor_id: int
    network: str
    payload: bytes
    transaction_id: str
    raw: bytes
    key: str
    nonce: int | None
    detail: Mapping[str, Any]


class ApprovalRow(Row, frozen=True):
    """A row of ``approvals``."""

    anchor_id: int
    envelope: bytes


class NonceRow(Row, frozen=True):
    """A row of ``nonces``."""

    network: str
    key: str
    nonce: int
    anchor_id: int


class ReceiptRow(Row, frozen=True):
    """A row of ``receipts``."""

    entry: int
    anchor_id: int
    network: str
    document: str


class NetworkRow(Row, frozen=True):
    """A row of ``networks``."""

    network: str
    identity: Mapping[str, Any]
    paused: str | None


TABLES: Final[Mapping[type[Row], tuple[str, str]]] = {
    Run: ("runs", "run"),
    RecordRow: ("records", "producer, seq"),
    ArchivedRow: ("archived_runs", "run"),
    ProducerRow: ("producers", "run, producer"),
    StatementRow: ("statements", "run, producer, count"),
    MarkRow: ("marks", "phase, epoch, producer"),
    DueRow: ("due_checkpoints", "epoch"),
    WeightsRow: ("epoch_weights", "epoch, root"),
    TreeRow: ("run_trees", "run"),
    EquivocationRow: ("equivocations", "run, producer, seq"),
    ParkedRow: ("parked", "id"),
    ParkedBytes: ("parked", "id"),
    Entry: ("ledger_entries", "entry"),
    LeafRow: ("ledger_entries", "entry"),
    OutcomeRow: ("outcomes", "entry"),
    SubtreeRow: ("subtrees", "node"),
    HeadRow: ("heads", "size"),
    Anchor: ("anchors", "network, size"),
    Version: ("anchor_versions", "id"),  # oldest first
    ApprovalRow: ("approvals", "anchor_id"),
    NonceRow: ("nonces", "network, key, nonce"),
    ReceiptRow: ("receipts", "entry, anchor_id"),
    NetworkRow: ("networks", "network"),
}
"""The table of each kind of row, and the order it is read in."""
VIEWS: Final[Mapping[type[Row], str]] = {
    Entry: "(SELECT * FROM ledger_entries WHERE phase <> 'outcome') AS seals",
    OutcomeRow: "(SELECT * FROM ledger_entries LEFT JOIN outcomes USING (entry)"
    " WHERE phase = 'outcome') AS shown",
}
"""Kinds of rows that are a part of a table, or of two."""
Key = tuple[bytes, int]
"""Producer and seq."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """All that is known of one run.

    Attributes:
        row: None where the database has no such run.
        archived: Whether ``records`` are those of its archive file.
        entries: The run's ledger entries, by index.
        spooled: Events in the spool.
        streamed: Records in the streams: canonical bytes.
        parked: Records that ingest refused.
        acked: Per producer, the highest count that anybody was told the database has.
        acknowledged: Per producer, what the ledger's key signed that the database has.
        ignore_after_ns: Events with a later time may still be on their way.
    """

    run: UUID
    row: Run | None
    archived: bool
    records: Sequence[RecordRow]
    entries: Sequence[Entry]
    producers: Sequence[ProducerRow]
    statements: Sequence[StatementRow]
    equivocations: Sequence[EquivocationRow]
    marks: Sequence[MarkRow]
    due: Sequence[DueRow]
    weights: Sequence[WeightsRow]
    trees: Sequence[TreeRow]
    spooled: Mapping[Key, tuple[SegmentHeader, Event]]
    streamed: Mapping[Key, bytes]
    parked: Mapping[Key, Sequence[bytes]]
    acked: Mapping[bytes, int]
    acknowledged: Mapping[bytes, Acknowledgement]
    ignore_after_ns: int | None
