"""Values of the ledger store and of networks: rows, anchors, signed versions, observations.

Over 400 lines: all rows stand together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from uuid import UUID

from provenance.formats.fields import Fields, names_of
from provenance.formats.record import Json, Kind, Phase
from provenance.proofs.multisig import Quorum

PAYLOAD_TAG = b"MLP1"
PAYLOAD_BYTES = 36
FORK = "fork"
"""Begins ``NetworkRow.paused`` where the network shows a root that the database does not know."""


def anchor_payload(root: bytes) -> bytes:
    """The 36 bytes that go on a chain: tag ``MLP1`` and the 32-byte ledger root."""
    if len(root) != 32:
        raise ValueError(f"root of {len(root)} bytes, expected 32")
    return PAYLOAD_TAG + root


def payload_root(payload: bytes) -> bytes | None:
    """The 32-byte root in an anchor's payload; None where it is none."""
    if len(payload) == PAYLOAD_BYTES and payload.startswith(PAYLOAD_TAG):
        return payload[len(PAYLOAD_TAG) :]
    return None


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
    identity: bytes | None = None
    """The 97 bytes by which somebody stands behind the run; None if nobody does."""


@dataclass(frozen=True, slots=True)
class ProducerRow:
    """What is kept of one producer, moved by each insert.

    Attributes:
        certificate: Its 164 bytes, by the run's key.
        contiguous: Its first events that are here without a hole.
        chain: Their chain, 32 bytes (:mod:`provenance.formats.producers.statement`).
        highest: Its highest ``seq`` here, plus 1.
        ended: How many events its ``run.end`` announces before itself; None without one.
        end_state: The state that its ``run.end`` states; None without one.
        marked: The highest epoch of its checkpoint marks among ``contiguous``; -1 without one.
    """

    run: UUID
    producer: bytes
    rank: int
    certificate: bytes
    contiguous: int
    chain: bytes
    highest: int
    ended: int | None = None
    end_state: str | None = None
    marked: int = -1


@dataclass(frozen=True, slots=True)
class TreeRow:
    """What is kept of a run's tree from its *before* seal on
    (:class:`provenance.formats.run_tree.walk.GrowingTree`).

    Attributes:
        leader, leader_ts, leader_seq: The mark of the *before* seal.
        world_size: How many ranks the leader's configuration announces.
        data, model: Roots of these nodes, 32 bytes.
        training: The entries so far, as ``Frontier.to_bytes`` writes them.
        closed: The epoch of the last checkpoint; -1 without one.
    """

    run: UUID
    leader: bytes
    leader_ts: str
    leader_seq: int
    world_size: int
    data: bytes
    model: bytes
    training: bytes
    closed: int = -1


@dataclass(frozen=True, slots=True)
class StatementRow:
    """A producer's signature over its first ``count`` records.

    The newest is kept, and the one that was the newest at each seal.
    """

    run: UUID
    producer: bytes
    count: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record's canonical bytes with the columns the queries need.

    Attributes:
        chain: Its producer's chain up to it, 32 bytes; None while there is a hole before it.
    """

    run: UUID
    producer: bytes
    seq: int
    kind: Kind
    epoch: int | None
    rank: int
    ts: str
    digest: bytes
    data: bytes
    chain: bytes | None = None


class Inserted(StrEnum):
    """What became of a record handed to :meth:`LedgerTx.insert_records`."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Equivocation:
    """A second value for a key that already has one; the first stands.

    ``proof`` shows that the producer signed it: a
    :class:`~provenance.formats.producers.batch.SignedRange`.
    """

    run: UUID
    producer: bytes
    seq: int
    digest: bytes
    data: bytes
    seen_at: float
    proof: bytes


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
    """Entry ``index`` of the ledger that is a seal: a run root and what it stands for.

    Attributes:
        coverage: What the seal states to cover: producers, in order, each with a number of its
            first events (:mod:`provenance.formats.run_tree.selection`).
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
class OutcomeRow:
    """Entry ``index`` of the ledger: the SHA-256 of ``document``, how a run came out when it was
    verified again (:mod:`provenance.formats.tlog.outcome`)."""

    index: int
    run: UUID
    document: bytes


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
    HELD = "held"
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
    paid: float | None = None
    """What its transaction cost, in wei or satoshi; None until it is in a block, or where it is
    not known."""


class Work(StrEnum):
    """What is due of a run when its time has come."""

    REPORT = "report"
    """Once, when the entry ``index`` is final everywhere."""
    VERIFICATION = "verification"
    """Once for each sealed run; ``told`` is how it came out last, None before the first."""
    ALERT = "alert"
    """Until a webhook took it; ``told`` is its body."""
    ARCHIVE = "archive"
    """Until the run's records lie in the archive."""
    ATTESTATION = "attestation"
    """Until Ethereum has the run's newest outcome; ``told`` is a :class:`PendingAttestation`, None
    before the first try."""


@dataclass(frozen=True, slots=True)
class DueWork:
    """A piece of work that is there until it is done."""

    id: int
    kind: Work
    run: UUID
    index: int | None
    told: str | None
    attempts: int
    next_attempt_at: float


@dataclass(frozen=True, slots=True)
class PendingAttestation:
    """How far the attestation of an outcome is, stored before anything is sent.

    Attributes:
        number: Of the outcome; 0 while nothing was sent.
        nonce: Of its transaction, whichever fees it is sent with: a chain takes one.
        since: Time of the newest block when the nonce was taken, Unix seconds.
        problem: Why it cannot be sent; None where it can.
    """

    number: int = 0
    nonce: int | None = None
    since: int = 0
    problem: str | None = None

    def encode(self) -> str:
        """JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str | None) -> PendingAttestation:
        """Read :meth:`encode`; None is nothing yet. Raises FormatError."""
        if text is None:
            return cls()
        top = Fields.parse(text.encode(), "due_work.told").only(*names_of(cls))
        return cls(
            top.integer("number"),
            top.maybe("nonce", top.integer),
            top.integer("since"),
            top.maybe("problem", top.text),
        )


@dataclass(frozen=True, slots=True)
class ArchivedRun:
    """A run whose records lie in an archive file instead of the database.

    Attributes:
        digest: SHA-256 of the file, 32 bytes, by which it is found.
        size: Bytes of the file.
        records: How many it has.
    """

    run: UUID
    digest: bytes
    size: int
    records: int
    archived_at: float


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
    """What is remembered of a network: its identity, and why it is paused.

    Attributes:
        explained: The height up to which a person has seen that roots there, under our key, are of
            no head of this ledger; None where nobody was asked.
    """

    network: str
    identity: Mapping[str, Json]
    paused: str | None
    checked_at: float
    explained: int | None = None

    @property
    def forked(self) -> bool:
        """Whether it is paused for what it shows, which this ledger contradicts."""
        return (self.paused or "").startswith(f"{FORK}:")


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
    ``our_code`` says whether the code of the contract that took it was this project's in that
    block; None where no contract did, where it is the configured one, or where the node
    cannot tell.
    """

    place: Place
    root: bytes | None = None
    block_hash: str | None = None
    height: int | None = None
    depth: int = 0
    final: bool = False
    block_time: float | None = None
    our_code: bool | None = None
    paid: int | None = None
    """What it cost its sender, in wei; None where the network does not say."""
    quorum: Quorum | None = None
    """Who must sign there, by the contract's code and storage; None where it is not several."""


CHAIN_FIELDS = ("chain_id", "chain", "genesis")
"""What tells one chain from another, in a node's identity and in a receipt's evidence."""


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
