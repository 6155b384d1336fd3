"""BatchWriter: signed batches become rows of one transaction.

A batch's signatures are verified (the run id commits to the run's key, which certified the
producer's, which signed the chain of all its records so far), every record is decoded and must be
the one its batch announces, all of it is inserted by key, and the producer's counters move on.

Of what a producer signed the newest statement stays that fits the records that are here, and
those that are ahead of them; at a seal all that are here are kept. What cannot be taken is parked
with the reason and never blocks the rest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields, replace
from uuid import UUID

from provenance.errors import (
    BadSignatureError,
    FormatError,
    TooLargeError,
)
from provenance.formats.producers.batch import Batch, open_batch
from provenance.formats.producers.certificate import Certificate
from provenance.formats.producers.signed_range import SignedRange
from provenance.formats.producers.statement import Statement, chain_on, chain_start
from provenance.formats.record import Kind, Phase, Record
from provenance.formats.run_tree.selection import (
    BEFORE_KINDS,
    SealMark,
    before_mark,
    seal_marks,
)
from provenance.ledger.seal import Enrolment
from provenance.ports.store import LedgerTx
from provenance.ports.transport import MAX_ENTRY_BYTES, Delivery
from provenance.ports.values import (
    Equivocation,
    Inserted,
    LedgerEntry,
    Parked,
    ProducerRow,
    RunRow,
    StatementRow,
    StoredRecord,
)

MAX_DELIVERIES = 3
"""An entry that comes again after these ends its workers, or cannot be committed."""


@dataclass(slots=True)
class IngestResult:
    """Counts of one drain, and the ledger entries it made."""

    batches: int = 0
    new: int = 0
    duplicates: int = 0
    equivocations: int = 0
    parked: int = 0
    entries: list[LedgerEntry] = field(default_factory=list)

    def add(self, other: IngestResult) -> None:
        """Sum up."""
        for entry in fields(IngestResult):
            setattr(self, entry.name, getattr(self, entry.name) + getattr(other, entry.name))


class BatchWriter:
    """Inserts batches in one transaction.

    Attributes:
        marks: The seal records that were new, by run.
    """

    def __init__(
        self, tx: LedgerTx, now: float, total: IngestResult, trainers: Enrolment | None
    ) -> None:
        self.tx, self.now, self.total, self._trainers = tx, now, total, trainers
        self.leaders: dict[UUID, SealMark | None] = {}
        self.closed: dict[tuple[UUID, Kind], set[tuple[bytes, int]]] = {}
        self.marks: dict[UUID, list[Record]] = {}
        self.producers: dict[tuple[UUID, bytes], ProducerRow] = {}

    def take(self, delivery: Delivery) -> UUID | None:
        """Insert a batch; the run it touched, or None where it was parked whole."""
        self.total.batches += 1
        payload = delivery.payload
        try:
            if not payload:
                raise FormatError("entry without field b, or with nothing in it")
            if delivery.size > MAX_ENTRY_BYTES:
                raise TooLargeError(f"entry of {delivery.size} bytes, at most {MAX_ENTRY_BYTES}")
            if delivery.deliveries > MAX_DELIVERIES:
                raise FormatError(f"delivered {delivery.deliveries} times, never committed")
            batch = open_batch(payload)
        except (FormatError, BadSignatureError) as error:
            self._park(None, payload, str(error))
            return None
        certificate = batch.certificate
        run_id = certificate.run
        problem = self._stranger(batch)
        if problem is None:
            run = self.tx.add_run(run_id, certificate.run_key, self.now, batch.identity_bytes)
            producer = self._producer(certificate)
            problem = _another_history(batch, run, producer)
        if problem is not None:
            self._park(run_id, payload, problem)
            return None
        rows = [self._row(batch, run, index, data) for index, data in enumerate(batch.records)]
        taken = [row for row in rows if row is not None]
        self._insert(taken, batch)
        if taken and run.state == "open":
            self._advance(producer, batch, taken[-1].seq + 1)
        return run_id

    def save(self) -> None:
        """Write the counters of the producers that were touched."""
        for row in self.producers.values():
            self.tx.save_producer(row)

    def _stranger(self, batch: Batch) -> str | None:
        """Why nobody known stands behind the batch's run; None where somebody does, or need
        not."""
        if self._trainers is None:
            return None
        run, key = batch.certificate.run, batch.certificate.run_key
        row = self.tx.run(run)
        problem = "no identity signed this run, expected one of trust.trainers"
        for identity in (None if row is None else row.identity, batch.identity_bytes):
            if identity is not None:
                stranger = self._trainers(identity, run, key)
                if stranger is None:
                    return None
                problem = stranger
        return problem

    def _producer(self, certificate: Certificate) -> ProducerRow:
        key = (certificate.run, certificate.producer)
        if key not in self.producers:
            stored = self.tx.producer(*key)
            self.producers[key] = stored or ProducerRow(
                run=certificate.run,
                producer=certificate.producer,
                rank=certificate.rank,
                certificate=certificate.encode(),
                contiguous=0,
                chain=chain_start(certificate.run, certificate.producer),
                highest=0,
            )
        return self.producers[key]

    def _advance(self, producer: ProducerRow, batch: Batch, upto: int) -> None:
        """Move the producer's counters over what is here now, and keep what it signed.

        Args:
            upto: The last ``seq`` that was taken of the batch, plus 1.
        """
        count, run = batch.statement.count, producer.run
        key = (run, producer.producer)
        if count > producer.contiguous:
            signature = batch.statement.signature
            self.tx.add_statement(StatementRow(run, producer.producer, count, signature))
        row = replace(producer, highest=max(producer.highest, upto))
        if batch.first_seq > row.contiguous or count <= row.contiguous:
            self.producers[key] = row
            return
        signed = {row.count: row for row in self.tx.statements(*key)}
        fitting, others = 0, list[int]()
        producer_key = batch.certificate.producer_key
        for seq, digest in self.tx.digests_from(*key, row.contiguous):
            if seq != row.contiguous:
                break
            row = replace(row, contiguous=seq + 1, chain=chain_on(row.chain, [digest]))
            statement = signed.get(row.contiguous)
            if statement is None:
                continue
            try:
                Statement(row.producer, row.contiguous, statement.signature).verify(
                    run, row.chain, producer_key
                )
                fitting = row.contiguous
            except BadSignatureError:
                others.append(row.contiguous)
        older = [count for count in signed if count < fitting]
        if older or others:
            self.tx.drop_statements(*key, {*older, *others})
        self.producers[key] = row

    def _row(self, batch: Batch, run: RunRow, index: int, data: bytes) -> StoredRecord | None:
        """A record to insert; None where it was parked."""
        try:
            record = Record.decode(data)
        except FormatError as error:
            self._park(run.run, data, str(error))
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
            self._park(run.run, data, f"{record.kind} seq {record.seq}: {problem}")
            return None
        return StoredRecord(
            run=record.run,
            producer=record.producer,
            seq=record.seq,
            kind=record.kind,
            epoch=record.epoch,
            rank=record.rank,
            digest=batch.digests[index],
            data=data,
        )

    def _is_late(self, record: Record) -> bool:
        """Whether a record would change what the before seal covers, or who leads the run.

        What a restarted leader repeats changes neither: it is late, under no root.
        """
        is_mark = (
            record.kind is Kind.SEAL
            and record.body.get("phase") == Phase.BEFORE
            and record.body.get("epoch") is None
        )
        if record.kind not in BEFORE_KINDS and not is_mark:
            return False
        leader = self._leader(record.run)
        if leader is None:
            return False
        if is_mark and record.order < leader.order:
            return True
        return record.producer == leader.producer and record.seq < leader.seq

    def _leader(self, run: UUID) -> SealMark | None:
        """The before mark of a run whose before seal is in the ledger."""
        if run not in self.leaders:
            sealed = any(entry.phase is Phase.BEFORE for entry in self.tx.entries(run))
            stored = self.tx.records(run, (Kind.SEAL,)) if sealed else ()
            self.leaders[run] = before_mark(seal_marks(Record.decode(r.data) for r in stored))
        return self.leaders[run]

    def _is_known(self, record: Record) -> bool:
        """Whether a late record is a repetition. Read once a kind: late kinds gain no records."""
        key = (record.run, record.kind)
        if key not in self.closed:
            stored = self.tx.records(record.run, [record.kind])
            self.closed[key] = {(row.producer, row.seq) for row in stored}
        return (record.producer, record.seq) in self.closed[key]

    def _insert(self, rows: list[StoredRecord], batch: Batch) -> None:
        for row, outcome in zip(rows, self.tx.insert_records(rows, self.now), strict=True):
            if outcome is Inserted.NEW:
                self.total.new += 1
                if row.kind is Kind.SEAL:
                    self.marks.setdefault(row.run, []).append(Record.decode(row.data))
            elif outcome is Inserted.DUPLICATE:
                self.total.duplicates += 1
            else:
                self.total.equivocations += 1
                proof = SignedRange.of(batch).encode()
                self.tx.add_equivocation(
                    Equivocation(
                        row.run, row.producer, row.seq, row.digest, row.data, self.now, proof
                    )
                )

    def _park(self, run: UUID | None, payload: bytes, reason: str) -> None:
        self.total.parked += 1
        digest = hashlib.sha256(payload).hexdigest()
        self.tx.park(Parked(digest, run, reason, payload, self.now))


def _another_history(batch: Batch, run: RunRow, producer: ProducerRow) -> str | None:
    """What sets the batch apart from what its producer stated before; None if nothing does."""
    if run.public_key != batch.certificate.run_key:
        return (
            f"batch of key {batch.certificate.run_key.hex()[:16]}, "
            f"the run's key is {run.public_key.hex()[:16]}"
        )
    if batch.certificate.encode() != producer.certificate:
        return f"producer {producer.producer.hex()[:8]} has another certificate than before"
    if batch.first_seq == producer.contiguous and batch.before != producer.chain:
        return (
            f"event {batch.first_seq} of producer {producer.producer.hex()[:8]} follows other "
            "events than those that are here"
        )
    return None


def _misplaced(record: Record, batch: Batch, seq: int, run: RunRow) -> str | None:
    """What contradicts the record's batch or its run; None if nothing does."""
    certificate = batch.certificate
    if record.run != run.run:
        return f"names run {record.run}, its batch names {run.run}"
    if record.producer != certificate.producer:
        return f"names producer {record.producer.hex()}, its batch {certificate.producer.hex()}"
    if record.seq != seq:
        return f"stands at the place of seq {seq}"
    if record.rank != certificate.rank:
        return f"names rank {record.rank}, its certificate rank {certificate.rank}"
    if record.kind.is_epoch and record.epoch is None:
        return "has no epoch"
    if record.kind is Kind.CONFIG and record.body.get("public_key") != run.public_key.hex():
        return "states another public key than the one that signed it"
    return None
