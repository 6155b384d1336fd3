"""Rows for tests of the ledger store, and the rules that one walk over a run is held against."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Engine

from provenance.errors import InputError
from provenance.formats.producers.statement import chain_on, chain_start, statement_digest
from provenance.formats.record import Kind, Phase, Record
from provenance.formats.run_tree.selection import (
    BEFORE_KINDS,
    FREE_KINDS,
    DigestedRecord,
    Sealed,
    before_mark,
    leaf_of,
    seal_marks,
)
from provenance.formats.run_tree.tree import MLProvenanceMerkleTree, RecordLeaf
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorRow, AnchorState, HeadRow, SignedVersion, StoredRecord
from provenance.stores.sql import SqlStore

RUN = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
OTHER = UUID("01890a5d-ac96-774b-bcce-b302099a8058")
KEY = bytes(range(32))
A = b"a" * 16
B = b"b" * 16
DUE = (AnchorState.DUE, AnchorState.SENT)


def empty_store() -> SqlStore:
    """A new database in memory; migrated once for all, which takes longer than most tests."""
    store = SqlStore("sqlite://")
    engine, (data, first) = store._engine, _migrated()
    assert engine is not None
    connection: Any = engine.raw_connection().driver_connection
    connection.deserialize(data)
    # What SQLAlchemy compiled for one store it takes for the next: a third of a world's time.
    engine.dialect, engine._compiled_cache = first.dialect, first._compiled_cache
    return store


@cache
def _migrated() -> tuple[bytes, Engine]:
    with SqlStore.open("sqlite://").exclusive() as connection:
        driver: Any = connection.connection.driver_connection
        return bytes(driver.serialize()), connection.engine


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def record(
    seq: int,
    *,
    run: UUID = RUN,
    producer: bytes = A,
    kind: Kind = Kind.METRICS,
    epoch: int | None = 1,
    text: str | None = None,
) -> StoredRecord:
    data = (text or f"{producer.hex()} {seq}").encode()
    own = hashlib.sha256(data).digest()
    return StoredRecord(run, producer, seq, kind, epoch, 0, f"{seq:027}", own, data)


def digested(tx: LedgerTx, run: UUID) -> list[DigestedRecord]:
    """All records of a run, decoded, with their stored digests."""
    return [DigestedRecord(Record.decode(row.data), row.digest) for row in tx.records(run)]


# --- which records count at a seal, rule by rule ------------------------------------------


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A sealed checkpoint: its epoch, and how many of its first events per producer it covers."""

    epoch: int
    coverage: Mapping[bytes, int]


@dataclass(frozen=True)
class SealedEntry:
    index: int
    phase: Phase
    epoch: int | None
    coverage: tuple[tuple[bytes, int], ...]


def checkpoints_upto(entries: Iterable[Sealed], index: int | None = None) -> list[Checkpoint]:
    """The checkpoints among a run's ledger entries up to ``index`` (all where None)."""
    return [
        Checkpoint(entry.epoch, dict(entry.coverage))
        for entry in sorted(entries, key=lambda entry: entry.index)
        if entry.phase is Phase.CHECKPOINT
        and entry.epoch is not None
        and (index is None or entry.index <= index)
    ]


def run_leaves(
    records: Collection[DigestedRecord], phase: Phase, checkpoints: Sequence[Checkpoint] = ()
) -> tuple[list[RecordLeaf], list[DigestedRecord]]:
    """The leaves at a seal of all records of a run, and the leaf records that are late.

    Args:
        checkpoints: The run's checkpoints so far, in the ledger's order; at a checkpoint the
            last one is its own.
    """
    marks = seal_marks(item.record for item in records)
    leader = before_mark(marks)
    leading = leader.producer if leader else None
    enders = {mark.producer for mark in marks if mark.phase is Phase.AFTER} | {leading}
    deciding: list[Checkpoint] = []
    for checkpoint in checkpoints:
        if not deciding or checkpoint.epoch > deciding[-1].epoch:
            deciding.append(checkpoint)
    upto = checkpoints[-1].epoch if checkpoints and phase is Phase.CHECKPOINT else -1
    leaves: list[RecordLeaf] = []
    late: list[DigestedRecord] = []
    for item in records:
        record, at = item.record, len(deciding)
        if not record.kind.is_leaf:
            continue
        counts = phase is Phase.AFTER
        if record.kind in BEFORE_KINDS:
            is_late = leader is None or record.producer != leading or record.seq >= leader.seq
            counts = True
        elif record.kind is Kind.RESULTS:
            is_late = record.producer not in enders
        else:
            if record.epoch is not None:
                at = bisect_left(deciding, record.epoch, key=lambda each: each.epoch)
                counts = counts or record.epoch <= upto
            covered = deciding[at].coverage.get(record.producer, 0) if at < len(deciding) else None
            is_late = covered is not None and record.seq >= covered
        if is_late:
            late.append(item)
        elif counts:
            leaves.append(leaf_of(item))
    return leaves, late


def run_tree(
    records: Collection[DigestedRecord],
    phase: Phase,
    checkpoints: Sequence[Checkpoint] = (),
    coverage: Mapping[bytes, int] | None = None,
) -> MLProvenanceMerkleTree:
    """The run tree at a seal that states a coverage; else as :func:`run_leaves`.

    Raises:
        InputError: A record has no place in a tree, or one that is covered is not here.
    """
    leaves, _ = run_leaves(records, phase, checkpoints)
    return MLProvenanceMerkleTree(leaves, producer_digests(records, coverage or {}))


def producer_digests(
    records: Collection[DigestedRecord], coverage: Mapping[bytes, int]
) -> list[bytes]:
    """What stands for each producer under a run root: the digest of its statement, in order."""
    digests: dict[bytes, dict[int, bytes]] = {producer: {} for producer in coverage}
    runs: dict[bytes, UUID] = {}
    for item in records:
        record = item.record
        if record.seq < coverage.get(record.producer, 0):
            digests[record.producer][record.seq] = item.digest
            runs[record.producer] = record.run
    result = []
    for producer, count in sorted(coverage.items()):
        own = digests[producer]
        missing = next((seq for seq in range(count) if seq not in own), None)
        if missing is not None or not count:
            raise InputError(
                f"producer {producer.hex()}: event {missing or 0} is covered and is not here"
            )
        run = runs[producer]
        chain = chain_on(chain_start(run, producer), (own[seq] for seq in range(count)))
        result.append(statement_digest(run, producer, count, chain))
    return result


def covered(
    records: Iterable[DigestedRecord], checkpoints: Sequence[Checkpoint]
) -> dict[bytes, int]:
    """What the last of the checkpoints has to state, being what it states or less (rule 4)."""
    if not checkpoints:
        return {}
    own, before = checkpoints[-1], max((c.epoch for c in checkpoints[:-1]), default=-1)
    found: dict[bytes, int] = {}
    for item in records:
        record = item.record
        decided = record.kind in FREE_KINDS
        if record.kind.is_epoch and record.epoch is not None:
            decided = before < record.epoch <= own.epoch
        if decided and record.seq < own.coverage.get(record.producer, 0):
            found[record.producer] = max(record.seq + 1, found.get(record.producer, 0))
    return found


# --- rows --------------------------------------------------------------------------------


def signed(text: str = "tx", **changes: object) -> SignedVersion:
    plain = SignedVersion(
        network="ethereum",
        payload=b"MLP1" + bytes(32),
        transaction_id=f"0x{text}",
        raw=text.encode(),
        key="0xkey",
        nonce=7,
        fee=2_000_000_000,
        detail={"chain_id": 31337, "inputs": ["a", "b"], "wei": 10**30},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # keyword arguments of several types


def with_heads(tx: LedgerTx, sizes: int) -> None:
    for size in range(1, sizes + 1):
        tx.add_head(HeadRow(size, digest(f"root {size}"), f"note {size}", b"frontier", 1.0))


def with_anchor(tx: LedgerTx, size: int = 1, network: str = "ethereum") -> AnchorRow:
    with_heads(tx, size)
    return tx.add_anchor(network, size, 1.0)
