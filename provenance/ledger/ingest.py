"""Ingest: signed batches from the stream become records in the database.

Life of a batch: it is read, its signature is verified against the key it names and that
key against the run's, every record is decoded and must be the one its batch announces, all
of it is inserted by key, seals that have become possible are made, the transaction commits,
and only then is the entry acknowledged. A crash anywhere repeats the whole; repeating
changes nothing.

What cannot be taken is parked with the reason and never blocks the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from provenance.errors import BadSignatureError, FormatError
from provenance.formats.producers.batch import Batch, open_batch
from provenance.formats.record import Kind, Phase, Record, record_digest
from provenance.formats.run_tree.selection import BEFORE_KINDS
from provenance.ledger.seal import SealPolicy, log_left_out, seal_ready
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.transport import Delivery, EventTransport
from provenance.ports.values import (
    Equivocation,
    Inserted,
    LedgerEntry,
    Parked,
    RunRow,
    StoredRecord,
)

BATCHES_PER_READ = 500


@dataclass(slots=True)
class IngestResult:
    """Counts of one drain, and the ledger entries it made."""

    batches: int = 0
    new: int = 0
    duplicates: int = 0
    equivocations: int = 0
    parked: int = 0
    entries: list[LedgerEntry] = field(default_factory=list)


def drain(
    transport: EventTransport,
    store: LedgerStore,
    policy: SealPolicy,
    consumer: str,
    now: float,
    stale_after_s: float = 60.0,
    limit: int = 100,
) -> IngestResult:
    """Read and ingest until the stream is empty, at most ``limit`` reads.

    Entries that a dead consumer left behind for ``stale_after_s`` are taken over.

    Raises:
        TransportUnavailable, StoreUnavailable: Nothing is lost; what was not acknowledged
            is delivered again.
    """
    total = IngestResult()
    for _ in range(limit):
        deliveries = transport.read(consumer, BATCHES_PER_READ)
        if not deliveries:
            deliveries = transport.claim_stale(consumer, stale_after_s, BATCHES_PER_READ)
        if not deliveries:
            break
        ingest(transport, store, policy, deliveries, now, total)
    return total


def ingest(
    transport: EventTransport,
    store: LedgerStore,
    policy: SealPolicy,
    deliveries: Sequence[Delivery],
    now: float,
    total: IngestResult | None = None,
) -> IngestResult:
    """Ingest entries in one transaction, then acknowledge them."""
    total = total if total is not None else IngestResult()
    touched: set[UUID] = set()
    with store.transaction() as tx:
        writer = _Writer(tx, now, total)
        for delivery in deliveries:
            run = writer.take(delivery.payload)
            if run is not None:
                touched.add(run)
        for run in sorted(touched):
            if run in writer.marks:
                log_left_out(tx, run, writer.marks[run])
            total.entries.extend(seal_ready(tx, run, policy, now))
        upto = {
            run: {producer: count for producer, (count, _) in tx.contiguous(run).items()}
            for run in touched
        }
    try:
        for run, producers in upto.items():
            transport.publish_acknowledged(run, producers, deliveries[-1].generation)
    finally:
        # Also where a full server refuses the counts: deleting entries is what makes room.
        transport.ack(deliveries)
    return total


class _Writer:
    """Inserts batches in one transaction.

    Attributes:
        marks: The seal records that were new, by run.
    """

    def __init__(self, tx: LedgerTx, now: float, total: IngestResult) -> None:
        self.tx, self.now, self.total = tx, now, total
        self.before_sealed: dict[UUID, bool] = {}
        self.closed: dict[tuple[UUID, Kind], set[tuple[bytes, int]]] = {}
        self.marks: dict[UUID, list[Record]] = {}

    def take(self, payload: bytes) -> UUID | None:
        """Insert a batch; the run it touched, or None where it was parked whole."""
        self.total.batches += 1
        try:
            batch = open_batch(payload)
        except (FormatError, BadSignatureError) as error:
            self._park(None, payload, str(error))
            return None
        run = self.tx.add_run(batch.run, batch.public_key, self.now)
        if run.public_key != batch.public_key:
            self._park(
                batch.run,
                payload,
                f"batch signed with key {batch.public_key.hex()[:16]}, "
                f"the run's key is {run.public_key.hex()[:16]}",
            )
            return None
        rows = [self._row(batch, run, index, data) for index, data in enumerate(batch.records)]
        self._insert([row for row in rows if row is not None])
        return batch.run

    def _row(self, batch: Batch, run: RunRow, index: int, data: bytes) -> StoredRecord | None:
        """A record to insert; None where it was parked."""
        try:
            record = Record.decode(data)
        except FormatError as error:
            self._park(batch.run, data, str(error))
            return None
        problem = _misplaced(record, batch, batch.first_seq + index, run)
        sealed = run.state == "sealed"
        closed = sealed or (problem is None and self._is_late(record))
        if problem is None and closed and not self._is_known(record):
            problem = (
                "the run is sealed"
                if sealed
                else f"{record.kind} record after the run was sealed for training"
            )
        if problem is not None:
            self._park(batch.run, data, f"{record.kind} seq {record.seq}: {problem}")
            return None
        return StoredRecord(
            run=record.run,
            producer=record.producer,
            seq=record.seq,
            kind=record.kind,
            epoch=record.epoch,
            rank=record.rank,
            digest=record_digest(data),
            data=data,
        )

    def _is_late(self, record: Record) -> bool:
        if record.kind not in BEFORE_KINDS and not (
            record.kind is Kind.SEAL
            and record.body.get("phase") == Phase.BEFORE
            and record.body.get("epoch") is None
        ):
            return False
        if record.run not in self.before_sealed:
            self.before_sealed[record.run] = any(
                entry.phase is Phase.BEFORE for entry in self.tx.entries(record.run)
            )
        return self.before_sealed[record.run]

    def _is_known(self, record: Record) -> bool:
        """Whether a late record is a repetition. Read once a kind: late kinds gain no records."""
        key = (record.run, record.kind)
        if key not in self.closed:
            stored = self.tx.records(record.run, [record.kind])
            self.closed[key] = {(row.producer, row.seq) for row in stored}
        return (record.producer, record.seq) in self.closed[key]

    def _insert(self, rows: list[StoredRecord]) -> None:
        for row, outcome in zip(rows, self.tx.insert_records(rows, self.now), strict=True):
            if outcome is Inserted.NEW:
                self.total.new += 1
                if row.kind is Kind.SEAL:
                    self.marks.setdefault(row.run, []).append(Record.decode(row.data))
            elif outcome is Inserted.DUPLICATE:
                self.total.duplicates += 1
            else:
                self.total.equivocations += 1
                self.tx.add_equivocation(
                    Equivocation(row.run, row.producer, row.seq, row.digest, row.data, self.now)
                )

    def _park(self, run: UUID | None, payload: bytes, reason: str) -> None:
        self.total.parked += 1
        digest = hashlib.sha256(payload).hexdigest()
        self.tx.park(Parked(digest, run, reason, payload, self.now))


def _misplaced(record: Record, batch: Batch, seq: int, run: RunRow) -> str | None:
    """What contradicts the record's batch or its run; None if nothing does."""
    if record.run != batch.run:
        return f"names run {record.run}, its batch names {batch.run}"
    if record.producer != batch.producer:
        return f"names producer {record.producer.hex()}, its batch {batch.producer.hex()}"
    if record.seq != seq:
        return f"stands at the place of seq {seq}"
    if record.rank != batch.rank:
        return f"names rank {record.rank}, its batch rank {batch.rank}"
    if record.kind.is_epoch and record.epoch is None:
        return "has no epoch"
    if record.kind is Kind.CONFIG and record.body.get("public_key") != run.public_key.hex():
        return "states another public key than the one that signed it"
    return None
