"""What the use-cases need from the outside: three protocols and the values they speak in.

* :class:`EventTransport` carries signed batches from shippers to hashing workers.
* :class:`LedgerStore` is the system of record; everything happens inside its transactions.
* :class:`Network` is one place where a ledger head can be anchored.

Values are frozen; hashes are ``bytes`` here and hex only at the borders. Times are
``float`` seconds since the Unix epoch, handed in by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable
from uuid import UUID

from provenance.formats.record import Json, Kind, Phase

PAYLOAD_TAG = b"MLP1"
PAYLOAD_BYTES = 36


def anchor_payload(root: bytes) -> bytes:
    """The 36 bytes that go on a chain: tag ``MLP1`` and the 32-byte ledger root."""
    if len(root) != 32:
        raise ValueError(f"root of {len(root)} bytes, expected 32")
    return PAYLOAD_TAG + root


# --- transport ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delivery:
    """One stream entry: its id for :meth:`EventTransport.ack` and the batch bytes."""

    id: str
    payload: bytes


class EventTransport(Protocol):
    """Carries batches. At least once: an entry not acknowledged is delivered again.

    Every method raises TransportUnavailable where Redis refuses, times out or is full.
    """

    def append(self, payloads: Sequence[bytes]) -> None:
        """Add entries in order. MUST NOT retry by itself; all or an exception."""

    def read(self, consumer: str, count: int) -> list[Delivery]:
        """Up to ``count`` entries not yet given to any consumer; does not block."""

    def claim_stale(self, consumer: str, min_idle_s: float, count: int) -> list[Delivery]:
        """Take over entries another consumer was given ``min_idle_s`` ago and never acked."""

    def ack(self, ids: Sequence[str]) -> None:
        """Entries are committed to the database: acknowledge and delete them."""

    def backlog(self) -> int:
        """Entries in the stream, read or not."""

    def acknowledged(self, run: UUID) -> Mapping[bytes, int]:
        """Per producer, how many events from 0 without a hole the database has committed."""

    def publish_acknowledged(self, run: UUID, upto: Mapping[bytes, int]) -> None:
        """Tell the shippers what :meth:`acknowledged` should say. Never lowers a number."""

    def generation(self) -> str | None:
        """A random id written with the first append; another one, or None, means that
        the server lost its data and everything not acknowledged must be sent again."""

    def ping(self) -> None:
        """Raise where the server does not answer."""


# --- ledger store ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the database knows it."""

    run: UUID
    public_key: bytes
    state: str
    """``open`` or ``sealed``."""
    created_at: float
    sealed_at: float | None
    incomplete: str | None
    """Why the seal does not cover all that was announced; None where it does."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record's canonical bytes with the columns the queries need."""

    run: UUID
    producer: bytes
    seq: int
    kind: Kind
    epoch: int | None
    rank: int
    digest: bytes
    data: bytes


class Inserted(StrEnum):
    """What became of a record handed to :meth:`LedgerTx.insert_record`."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Equivocation:
    """A second value for a key that already has one; the first stands."""

    run: UUID
    producer: bytes
    seq: int
    digest: bytes
    data: bytes
    seen_at: float


@dataclass(frozen=True, slots=True)
class Parked:
    """Something ingest would not take, with the reason. ``id`` is the SHA-256 of ``payload``."""

    id: str
    run: UUID | None
    reason: str
    payload: bytes
    parked_at: float


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """Entry ``index`` of the ledger: a run root and what it stands for.

    Attributes:
        coverage: At a checkpoint, what its seal states to cover: producers, in order, each with
            a number of its first events (:mod:`provenance.formats.run_tree.selection`).
    """

    index: int
    run: UUID
    phase: Phase
    epoch: int | None
    root: bytes
    anchor: bool
    created_at: float
    coverage: tuple[tuple[bytes, int], ...] = ()


@dataclass(frozen=True, slots=True)
class HeadRow:
    """The ledger at ``size``: root, the signed note, and the frontier to append to."""

    size: int
    root: bytes
    note: str
    frontier: bytes
    created_at: float


class AnchorState(StrEnum):
    """States of an outbox row; the moves are in ``provenance.anchor.outbox``."""

    DUE = "due"
    SIGNED = "signed"
    SENT = "sent"
    CONFIRMED = "confirmed"
    FINAL = "final"
    REPLACED = "replaced"
    REORGED = "reorged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AnchorRow:
    """One head on its way to one network."""

    id: int
    network: str
    size: int
    root: bytes
    state: AnchorState
    attempts: int
    next_attempt_at: float
    lease_owner: str | None
    lease_until: float | None
    reason: str | None
    version_id: int | None
    """The version that counts: the newest sent, or the one that was confirmed."""
    height: int | None
    depth: int
    block_time: float | None
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class SignedVersion:
    """Signed bytes for one anchor, stored before they are sent.

    Attributes:
        transaction_id: ``0x`` + hash, txid, CID or local sequence name; known before sending.
        raw: Exactly what will be broadcast.
        key: What signs: an address, a wallet name; empty where there is none.
        nonce: Ethereum nonce; None elsewhere.
        fee: Price per unit in the network's own unit (wei per gas, sat per vB); 0 where free.
        detail: JSON facts needed later (inputs, gas limit, chain id, block number at signing).
    """

    network: str
    payload: bytes
    transaction_id: str
    raw: bytes
    key: str = ""
    nonce: int | None = None
    fee: int = 0
    detail: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A stored version. ``sent_at`` is None until a broadcast was accepted."""

    id: int
    anchor_id: int
    version: SignedVersion
    created_at: float
    sent_at: float | None


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """One ledger entry under one anchored head on one network; ``document`` is JSON text."""

    index: int
    anchor_id: int
    network: str
    document: str
    created_at: float


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """What is remembered of a network: its identity, and why it is paused."""

    network: str
    identity: Mapping[str, Json]
    paused: str | None
    checked_at: float


class LedgerTx(Protocol):
    """One transaction: all of it or nothing. Not valid after the ``with`` block."""

    def run(self, run: UUID) -> RunRow | None: ...
    def runs(self) -> Sequence[RunRow]: ...
    def add_run(self, run: UUID, public_key: bytes, now: float) -> RunRow:
        """Insert, or return the row that is there (the first public key stands)."""

    def seal_run(self, run: UUID, now: float, incomplete: str | None) -> None: ...

    def insert_record(self, record: StoredRecord, now: float) -> Inserted:
        """By key ``(run, producer, seq)``; on CONFLICT the stored value stays."""

    def insert_records(self, records: Sequence[StoredRecord], now: float) -> Sequence[Inserted]:
        """:meth:`insert_record` in bulk; one answer per record, in order."""

    def last_ingest(self, run: UUID) -> float | None:
        """When the newest record of the run was inserted; None without records."""

    def records(self, run: UUID, kinds: Iterable[Kind] | None = None) -> Sequence[StoredRecord]:
        """In ``(producer, seq)`` order."""

    def contiguous(self, run: UUID) -> Mapping[bytes, tuple[int, int]]:
        """Per producer ``(events from 0 without a hole, highest seq + 1)``."""

    def add_equivocation(self, equivocation: Equivocation) -> None:
        """Idempotent by ``(run, producer, seq, digest)``."""

    def equivocations(self, run: UUID | None = None) -> Sequence[Equivocation]: ...
    def park(self, parked: Parked) -> None:
        """Idempotent by id."""

    def parked(self, run: UUID | None = None) -> Sequence[Parked]: ...

    def append_entry(
        self,
        run: UUID,
        phase: Phase,
        epoch: int | None,
        root: bytes,
        anchor: bool,
        now: float,
        coverage: Mapping[bytes, int] | None = None,
    ) -> LedgerEntry:
        """Next index; ``(run, phase, epoch)`` is unique: the entry that is there is returned.

        Args:
            coverage: As in :class:`LedgerEntry`; InputError where a number of events is no
                whole number from 0, a producer not 16 bytes, or the phase no checkpoint."""

    def entries(self, run: UUID | None = None) -> Sequence[LedgerEntry]:
        """By index."""

    def entry_roots(self, size: int | None = None) -> Sequence[bytes]:
        """The first ``size`` roots (all where None): the leaf data of the ledger."""

    def add_head(self, head: HeadRow) -> None: ...
    def head(self, size: int | None = None) -> HeadRow | None:
        """The head at ``size``; the largest where None."""

    def heads(self) -> Sequence[HeadRow]: ...
    def extend_head_note(self, size: int, lines: str) -> HeadRow:
        """Put signature lines behind a head's note, which keeps all it has; the new row.

        Raises InputError where there is no such head."""

    def add_anchor(self, network: str, size: int, now: float) -> AnchorRow:
        """A DUE row; the one that is there is returned for a known ``(network, size)``."""

    def anchor(self, anchor_id: int) -> AnchorRow | None: ...
    def anchors(
        self, network: str | None = None, states: Iterable[AnchorState] | None = None
    ) -> Sequence[AnchorRow]:
        """By ``(network, size)``."""

    def claim(
        self,
        network: str,
        states: Iterable[AnchorState],
        owner: str,
        now: float,
        lease_s: float,
        limit: int,
    ) -> Sequence[AnchorRow]:
        """Lease rows that are due (``next_attempt_at <= now``) and not leased by another."""

    def due_networks(self, states: Iterable[AnchorState], now: float) -> frozenset[str]:
        """Networks with at least one row that :meth:`claim` would give."""

    def save_anchor(self, row: AnchorRow) -> None:
        """Write all mutable columns of the row."""

    def add_version(self, anchor_id: int, version: SignedVersion, now: float) -> VersionRow:
        """Store signed bytes; ``(network, transaction_id)`` is unique, and so is
        ``(network, key, nonce)`` among different anchors."""

    def mark_sent(self, version_id: int, now: float) -> None: ...
    def versions(self, anchor_id: int) -> Sequence[VersionRow]:
        """Oldest first."""

    def highest_nonce(self, network: str, key: str) -> int | None:
        """The highest nonce stored for a key, over all anchors."""

    def add_receipt(self, receipt: ReceiptRow) -> None:
        """Insert or replace by ``(index, anchor_id)``."""

    def delete_receipts(self, anchor_id: int) -> None:
        """A reorg took the confirmation away."""

    def receipts(self, run: UUID) -> Sequence[ReceiptRow]:
        """Receipts of the run's ledger entries, by (index, network)."""

    def network(self, network: str) -> NetworkRow | None: ...
    def save_network(self, row: NetworkRow) -> None: ...


class LedgerStore(Protocol):
    """The system of record (SQL). Raises StoreUnavailable where it cannot be reached."""

    def transaction(self) -> AbstractContextManager[LedgerTx]:
        """A write transaction: serialised against every other writer."""

    def snapshot(self) -> AbstractContextManager[LedgerTx]:
        """A read-only transaction that never waits for a writer."""

    def close(self) -> None: ...


# --- networks ----------------------------------------------------------------------------


class Place(StrEnum):
    """Where a transaction is, as a node tells it."""

    UNKNOWN = "unknown"
    """The node has never heard of it, or has forgotten it."""
    PENDING = "pending"
    """Accepted, in no block."""
    MINED = "mined"
    FAILED = "failed"
    """In a block, and it did not do its work (reverted)."""
    CONFLICTED = "conflicted"
    """Another transaction spent its nonce or inputs in a block."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a node says of a transaction, already validated against the request.

    ``depth`` counts the block itself: 1 for a transaction in the newest block.
    ``final`` is true at ``confirmations`` deep or under the ``finalized`` tag. ``root`` is
    the ledger root read back from the chain itself, never echoed from the request.
    """

    place: Place
    root: bytes | None = None
    block_hash: str | None = None
    height: int | None = None
    depth: int = 0
    final: bool = False
    block_time: float | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """Which chain a node serves: ``fields`` such as chain_id, genesis, network, version."""

    network: str
    fields: Mapping[str, Json]
    height: int | None
    sender: str | None
    balance: int | None


@dataclass(frozen=True, slots=True)
class Draft:
    """All that :meth:`Network.sign` needs; nothing has been spent yet."""

    network: str
    payload: bytes
    fields: Mapping[str, Json]


class Network(Protocol):
    """One place where a head can be anchored.

    Life of an anchor: ``identity`` is checked; ``draft`` asks the node for fees or inputs;
    ``sign`` gives the bytes and their transaction id; the caller STORES them; ``broadcast``
    sends them, as often as needed; ``observe`` tells the depth until it is final;
    ``evidence`` collects what an offline verifier needs.

    Methods raise NetworkUnavailable (retryable) or a permanent NetworkError, and nothing
    else. Every call to a node has a deadline.
    """

    name: str
    confirmations: int
    uses_nonce: bool

    def identity(self) -> Identity:
        """Ask the node who it is. Raises WrongNetworkError where the configuration differs."""

    def next_nonce(self) -> int:
        """The sender's next nonce as the node sees it, pending included; 0 without nonces."""

    def draft(self, payload: bytes, replaces: SignedVersion | None = None) -> Draft:
        """Prepare an anchor of the 36-byte payload; with ``replaces``, a version with a
        higher fee that spends the same nonce or inputs. Raises FeeTooLowError where the fee
        cap is reached, InsufficientFundsError where the balance is too low."""

    def sign(self, draft: Draft, nonce: int | None) -> SignedVersion:
        """Sign. MUST NOT talk to a node where ``uses_nonce``: it runs inside a transaction."""

    def broadcast(self, version: SignedVersion) -> None:
        """Send the stored bytes. MUST be safe to repeat: "already known" is success."""

    def observe(self, version: SignedVersion) -> Observation:
        """Where the version is now."""

    def evidence(self, version: SignedVersion, seen: Observation) -> dict[str, Json]:
        """What a receipt carries for offline checking (headers, merkle proofs, raw bytes)."""

    def lookup(self, transaction_id: str) -> Observation:
        """Find a transaction or CID by its id alone and read the root back: for verifiers."""

    def close(self) -> None: ...


@runtime_checkable
class LooksUpMany(Network, Protocol):
    """A network that can be asked for many transactions in few calls; not all can."""

    def lookup_many(self, transaction_ids: Sequence[str]) -> Mapping[str, Observation]:
        """:meth:`Network.lookup` in bulk, answer by answer the same.

        What is refused, contradictory, not answered or not mined is left out, for ``lookup``
        to say why.
        """
