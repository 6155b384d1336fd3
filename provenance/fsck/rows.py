"""Rows of the database as the checker has them; times are Unix seconds, hashes bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from provenance.formats.record import Phase


@dataclass(frozen=True, slots=True)
class Run:
    """A row of ``runs``."""

    run: UUID
    public_key: bytes
    identity: bytes | None
    state: str
    incomplete: str | None


@dataclass(frozen=True, slots=True)
class ProducerRow:
    """A row of ``producers``."""

    run: UUID
    producer: bytes
    rank: int
    certificate: bytes
    contiguous: int
    chain: bytes
    highest: int
    ended: int | None
    marked: int


@dataclass(frozen=True, slots=True)
class StatementRow:
    """A row of ``statements``."""

    run: UUID
    producer: bytes
    count: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class RecordRow:
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


@dataclass(frozen=True, slots=True)
class MarkRow:
    """A row of ``marks``."""

    phase: Phase
    epoch: int | None
    producer: bytes
    seq: int
    rank: int
    anchor: bool
    ts: str
    counts: bool


@dataclass(frozen=True, slots=True)
class DueRow:
    """A row of ``due_checkpoints``."""

    epoch: int


@dataclass(frozen=True, slots=True)
class TreeRow:
    """A row of ``run_trees``."""

    leader: bytes
    leader_ts: str
    leader_seq: int
    world_size: int
    data: bytes
    model: bytes
    training: bytes
    closed: int


@dataclass(frozen=True, slots=True)
class EquivocationRow:
    """A row of ``equivocations``."""

    run: UUID
    producer: bytes
    seq: int
    digest: bytes
    proof: bytes


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """A row of ``parked``; ``run`` None where the payload names none."""

    id: str
    run: UUID | None
    reason: str


@dataclass(frozen=True, slots=True)
class ParkedBytes:
    """The payload of a row of ``parked``: a batch, a record, or anything."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of ``ledger_entries``."""

    index: int
    run: UUID
    phase: Phase
    epoch: int | None
    root: bytes
    anchor: bool
    coverage: tuple[tuple[bytes, int], ...] = ()


@dataclass(frozen=True, slots=True)
class SubtreeRow:
    """A row of ``subtrees``; ``node`` counts all nodes from left to right."""

    node: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class HeadRow:
    """A row of ``heads``."""

    size: int
    root: bytes
    note: str
    frontier: bytes
    cosigned: bool


@dataclass(frozen=True, slots=True)
class Anchor:
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


@dataclass(frozen=True, slots=True)
class Version:
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


@dataclass(frozen=True, slots=True)
class NonceRow:
    """A row of ``nonces``."""

    network: str
    key: str
    nonce: int
    anchor_id: int


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """A row of ``receipts``."""

    entry: int
    anchor_id: int
    network: str
    document: str


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """A row of ``networks``."""

    network: str
    identity: Mapping[str, Any]
    paused: str | None
