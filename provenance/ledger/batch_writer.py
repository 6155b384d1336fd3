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

from provenance.errors import BadSignatureError, FormatError, TooLargeError
from provenance.formats.producers.batch import Batch, SignedRange, open_batch
from provenance.formats.producers.certificate import Certificate
from provenance.formats.producers.statement import Statement, chain_on, chain_start
from provenance.formats.record import Kind, Phase, Record
from provenance.formats.run_tree.selection import (
    BEFORE_KINDS,
    SealMark,
    announced_events,
    end_state,
    written_marks,
)
from provenance.ledger.seal import Enrolment, log_left_out
from provenance.ledger.teams import NO_TEAMS, Admission, Teams
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
    TreeRow,
)

MAX_DELIVERIES = 3
"""An entry that comes again after these ends its workers, or cannot be committed: deliveries that
a database did not answer are not counted."""


@dataclass(slots=True)
class IngestResult:
    """Counts of one drain, and the ledger entries it made.

    Attributes:
        runs: Whose records came, once for each transaction.
        more: It ended with its time, not with the stream.
    """

    batches: int = 0
    new: int = 0
    duplicates: int = 0
    equivocations: int = 0
    parked: int = 0
    entries: list[LedgerEntry] = field(default_factory=list)
    runs: list[UUID] = field(default_factory=list)
    more: bool = False

    def add(self, other: IngestResult) -> None:
        """Sum up."""
        for entry in fields(IngestResult):
            setattr(self, entry.name, getattr(self, entry.name) + getattr(other, entry.name))


class BatchWriter:
    """Inserts batches in one transaction.

    Attributes:
        gate: What it held back was not inserted.
        touched: The runs whose records came, each with the epochs of the checkpoint marks that
            began to count, once :meth:`save` was called.
    """

    def __init__(
        self,
        tx: LedgerTx,
        now: float,
        total: IngestResult,
        trainers: Enrolment | None,
        teams: Teams = NO_TEAMS,
    ) -> None:
        self.tx, self.now, self.total, self._trainers = tx, now, total, trainers
        self.gate = Admission(teams, tx, now)
        self.touched: dict[UUID, list[int]] = {}
        self.producers: dict[tuple[UUID, bytes], ProducerRow] = {}
        self._runs: dict[UUID, RunRow] = {}
        self._trees: dict[UUID, TreeRow | None] = {}
        self._marks: dict[UUID, list[SealMark]] = {}
        self._marked: set[tuple[UUID, int | None]] = set()
        self._counted: dict[tuple[UUID, bytes], int] = {}
        self._fitting: dict[tuple[UUID, bytes], StatementRow] = {}

    def take(self, delivery: Delivery) -> None:
        """Insert a batch, or park it."""
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
        else:
            self.insert(batch, payload)

    def insert(self, batch: Batch, payload: bytes) -> None:
        """Insert a batch whose signatures hold, hold it back, or park its ``payload``."""
        problem = self._stranger(batch)
        if problem is None:
            if self.gate.holds(batch):
                return
            run, producer = self._run(batch), self._producer(batch.certificate)
            problem = _another_history(batch, run, producer)
        if problem is not None:
            self._park(batch.certificate.run, payload, problem)
            return
        self.touched.setdefault(run.run, [])
        rows = self._rows(batch, run, producer)
        fresh = self._insert(rows, batch)
        if rows and run.state == "open":
            self._advance(producer, batch, rows[-1].seq + 1, fresh)

    def is_sealed(self, run: UUID) -> bool:
        """Whether the run was sealed before."""
        return self._runs[run].state == "sealed"

    def save(self) -> None:
        """Write what came of the producers: counters, statements, marks that count now."""
        for run, marks in self._marks.items():
            self.tx.add_marks(run, marks)
        for key, row in self.producers.items():
            counting = []
            if row.contiguous > self._counted[key]:
                for mark in self.tx.checkpoint_marks(*key, self._counted[key], row.contiguous):
                    if mark.epoch is not None and mark.epoch > row.marked:
                        row = replace(row, marked=mark.epoch)
                        counting.append(mark.epoch)
            if counting:
                self.tx.count_marks(*key, counting)
                self.touched[row.run] += counting
            self.producers[key] = row
            self.tx.save_producer(row)
        for key, statement in self._fitting.items():
            self.tx.add_statement(statement)
            unkept = self.tx.unkept_statements(*key)
            older = [each.count for each in unkept if each.count < statement.count]
            if older:
                self.tx.drop_statements(*key, older)

    def _run(self, batch: Batch) -> RunRow:
        run_id = batch.certificate.run
        run = self._runs.get(run_id)
        if run is None or (run.identity is None and batch.identity_bytes is not None):
            run = self.tx.add_run(run_id, batch.certificate.run_key, self.now, batch.identity_bytes)
            self._runs[run_id] = run
        return run

    def _stranger(self, batch: Batch) -> str | None:
        """Why nobody known stands behind the batch's run; None where somebody does, or need
        not."""
        if self._trainers is None:
            return None
        run, key = batch.certificate.run, batch.certificate.run_key
        row = self._runs.get(run) or self.tx.run(run)
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
            self._counted[key] = stored.contiguous if stored else 0
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

    def _advance(self, producer: ProducerRow, batch: Batch, upto: int, fresh: bool) -> None:
        """Move the producer's counters over what is here now, and keep what it signed.

        Args:
            upto: The last ``seq`` that was taken of the batch, plus 1.
            fresh: All of the batch was taken, and nothing of it was here.
        """
        count, key = batch.statement.count, (producer.run, producer.producer)
        row = self.producers[key]
        row = replace(row, highest=max(row.highest, upto))
        statement = StatementRow(*key, count, batch.statement.signature)
        if fresh and batch.first_seq == row.contiguous:
            row = replace(row, contiguous=count, chain=batch.chain)
            self._fitting[key] = statement
        elif count > row.contiguous:
            self.tx.add_statement(statement)
        if batch.first_seq <= row.contiguous < row.highest:
            row = self._fill(row, batch.certificate.producer_key)
        self.producers[key] = row

    def _fill(self, row: ProducerRow, producer_key: bytes) -> ProducerRow:
        """Go on over records that came before those that they follow."""
        key = (row.run, row.producer)
        signed = {each.count: each for each in self.tx.unkept_statements(*key)}
        chains: list[tuple[int, bytes]] = []
        others: list[int] = []
        for seq, digest, known in self.tx.digests_from(*key, row.contiguous):
            if seq != row.contiguous:
                break
            row = replace(row, contiguous=seq + 1, chain=chain_on(row.chain, [digest]))
            if known != row.chain:
                chains.append((seq, row.chain))
            statement = signed.get(row.contiguous)
            if statement is None:
                continue
            try:
                Statement(row.producer, row.contiguous, statement.signature).verify(
                    row.run, row.chain, producer_key
                )
                self._fitting[key] = statement
            except BadSignatureError:
                others.append(row.contiguous)
        self.tx.set_chains(*key, chains)
        if others:
            self.tx.drop_statements(*key, others)
        return row

    def _rows(self, batch: Batch, run: RunRow, producer: ProducerRow) -> list[StoredRecord]:
        """The records to insert; what cannot be is parked.

        A record knows its chain where those before it are all here or in the batch.
        """
        rows: list[StoredRecord] = []
        chain = producer.chain if batch.first_seq == producer.contiguous else None
        for index, digest in enumerate(batch.digests):
            chain = None if chain is None else chain_on(chain, [digest])
            row = self._row(batch, run, index, chain)
            if row is None:
                chain = None
            else:
                rows.append(row)
        return rows

    def _row(
        self, batch: Batch, run: RunRow, index: int, chain: bytes | None
    ) -> StoredRecord | None:
        """A record to insert; None where it was parked."""
        data = batch.records[index]
        try:
            record = Record.decode(data)
        except FormatError as error:
            self._park(run.run, data, str(error))
            return None
        problem = _misplaced(record, batch, batch.first_seq + index, run)
        sealed = run.state == "sealed"
        closed = sealed or (problem is None and self._is_late(record))
        known = closed and self.tx.has_record(record.run, record.producer, record.seq)
        if problem is None and closed and not known:
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
            ts=record.ts,
            digest=batch.digests[index],
            data=data,
            chain=chain,
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
        tree = self._tree(record.run)
        if tree is None:
            return False
        if is_mark and record.order < (tree.leader_ts, tree.leader.hex(), tree.leader_seq):
            return True
        return record.producer == tree.leader and record.seq < tree.leader_seq

    def _tree(self, run: UUID) -> TreeRow | None:
        if run not in self._trees:
            self._trees[run] = self.tx.tree(run)
        return self._trees[run]

    def _insert(self, rows: list[StoredRecord], batch: Batch) -> bool:
        """Whether this is all of the batch, and all of it is new."""
        outcomes = self.tx.insert_records(rows, self.now)
        for row, outcome in zip(rows, outcomes, strict=True):
            if outcome is Inserted.NEW:
                self.total.new += 1
                if not row.kind.is_leaf:
                    self._note(Record.decode(row.data))
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
        return len(rows) == len(batch.records) and set(outcomes) == {Inserted.NEW}

    def _note(self, record: Record) -> None:
        """Keep what a control record asks for or announces."""
        key = (record.run, record.producer)
        if record.kind is Kind.RUN_END:
            row = self.producers[key]
            ended = max(row.ended or 0, announced_events(record))
            state = end_state(record) if row.end_state is None else row.end_state
            self.producers[key] = replace(row, ended=ended, end_state=state)
        for mark in written_marks([record]):
            if (record.run, mark.epoch) not in self._marked:
                log_left_out(self.tx, self._tree(record.run), mark)
            self._marked.add((record.run, mark.epoch))
            self._marks.setdefault(record.run, []).append(mark)

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
