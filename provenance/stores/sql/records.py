"""Runs, records and their index of weights, what their producers signed, equivocations and parked
batches.

Over 400 lines: all that ingest writes stands together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from operator import attrgetter
from typing import Annotated, Final
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, true, update

from provenance.bundle.archive import Archive
from provenance.errors import InputError, IntegrityError, UnknownRunError
from provenance.formats.record import MAX_SAFE_INTEGER, Kind
from provenance.ports.listing import MAX_HELD_RUNS, HeldRun
from provenance.ports.values import (
    ArchivedRun,
    Equivocation,
    Inserted,
    Parked,
    ProducerRow,
    RunRow,
    StatementRow,
    StoredRecord,
)
from provenance.stores.sql import schema
from provenance.stores.sql.session import Session, fields_of, values_in

_Key = tuple[UUID, bytes, int]
_STRETCH_GAP: Final = 64
"""Two known sequence numbers this close are looked up in one range."""

PARKED_OF_RUN: Final = (1_000, 64 * 2**20)
PARKED_IN_ALL: Final = (10_000, 512 * 2**20)
"""Rows and bytes that are kept of what was refused: whoever is refused must not fill the disk."""
BEYOND: Final = "beyond the quota"

_RUNS: Final = values_in(RunRow, schema.runs)
_RECORDS: Final = values_in(StoredRecord, schema.records)
_VALUES: Final = attrgetter(*schema.records.c.keys()[:-1])
_ARCHIVED: Final = values_in(ArchivedRun, schema.archived_runs)
_PRODUCERS: Final = values_in(ProducerRow, schema.producers)
_STATEMENTS: Final = values_in(StatementRow, schema.statements)
_EQUIVOCATIONS: Final = values_in(Equivocation, schema.equivocations)
_PARKED: Final = values_in(Parked, schema.parked)
_HELD: Final = values_in(HeldRun, schema.held_runs)


class _Weights(msgspec.Struct):
    root: Annotated[str, msgspec.Meta(pattern=r"^mth-sha256:[0-9a-f]{64}\Z")]


class _State(msgspec.Struct):
    """All that the index reads of a ``state`` record, whose other fields it skips."""

    body: _Weights


_STATE: Final = msgspec.json.Decoder(_State)


def _epoch_weights(records: Iterable[StoredRecord]) -> list[dict[str, object]]:
    """The rows of ``epoch_weights`` that these records give."""
    found: dict[tuple[UUID, int, bytes], None] = {}
    for record in records:
        if record.kind is Kind.STATE and record.epoch is not None:
            with suppress(msgspec.DecodeError):  # states no root
                root = bytes.fromhex(_STATE.decode(record.data).body.root.partition(":")[2])
                found[record.run, record.epoch, root] = None
    return [{"run": run, "epoch": epoch, "root": root} for run, epoch, root in found]


class RecordsPart(Session):
    """What ingest writes; see :class:`provenance.ports.store.LedgerTx`."""

    def __init__(
        self, connection: Connection, label: str, writable: bool, archive: Archive | None
    ) -> None:
        super().__init__(connection, label, writable)
        self._archive = archive
        self._read_back: dict[UUID, dict[tuple[bytes, int], StoredRecord] | None] = {}
        self._arrived: list[StoredRecord] = []
        self._sealed: set[UUID] = set()
        self._arrived_at = 0.0
        self._joined: dict[UUID, tuple[str | None, int]] = {}

    def run(self, run: UUID) -> RunRow | None:
        return self._one(RunRow, _RUNS.where(schema.runs.c.run == run))

    def runs(self) -> Sequence[RunRow]:
        return self._all(RunRow, _RUNS.order_by(schema.runs.c.created_at, schema.runs.c.run))

    def add_run(
        self, run: UUID, public_key: bytes, now: float, identity: bytes | None = None
    ) -> RunRow:
        self._add_once(
            schema.runs, {"run": run, "public_key": public_key, "state": "open", "created_at": now}
        )
        if identity is not None:
            unknown = update(schema.runs).where(
                schema.runs.c.run == run, schema.runs.c.identity.is_(None)
            )
            self._write(unknown.values(identity=identity))
        row = self.run(run)
        assert row is not None
        return row

    def seal_run(self, run: UUID, now: float, incomplete: str | None) -> None:
        sealed = self._write(
            update(schema.runs)
            .where(schema.runs.c.run == run, schema.runs.c.state == "open")
            .values(state="sealed", sealed_at=now, incomplete=incomplete)
        )
        if sealed.rowcount:
            self._add_once(schema.due_announcements, {"run": run})
        elif self.run(run) is None:
            raise UnknownRunError(f"no run {run} in the database")
        self._sealed.add(run)

    def unannounced(self, limit: int) -> Sequence[UUID]:
        return list(self._read(select(schema.due_announcements.c.run).limit(limit)).scalars())

    def announced(self, runs: Iterable[UUID]) -> None:
        told = schema.due_announcements.c.run.in_(list(runs))
        self._write(delete(schema.due_announcements).where(told))

    def insert_records(self, records: Sequence[StoredRecord], now: float) -> list[Inserted]:
        known = self._digests(records)
        outcome: list[Inserted] = []
        new: list[StoredRecord] = []
        for record in records:
            key = (record.run, record.producer, record.seq)
            if key not in known:
                known[key] = record.digest
                outcome.append(Inserted.NEW)
                new.append(record)
            elif known[key] == record.digest:
                outcome.append(Inserted.DUPLICATE)
            else:
                outcome.append(Inserted.CONFLICT)
        if new:
            self._arrived += new
            self._arrived_at = now
            self._add_new(schema.records, [(*_VALUES(record), now) for record in new])
            self._index_weights(new)
            self._write(
                update(schema.runs)
                .where(
                    schema.runs.c.run.in_({record.run for record in new}),
                    func.coalesce(schema.runs.c.last_ingest, now) <= now,
                )
                .values(last_ingest=now)
            )
        return outcome

    def last_ingest(self, run: UUID) -> float | None:
        return self._read(
            select(schema.runs.c.last_ingest).where(schema.runs.c.run == run)
        ).scalar_one_or_none()

    def _digests(self, batch: Sequence[StoredRecord]) -> dict[_Key, bytes]:
        """Stored digests of the batch's keys, and of some of their neighbours."""
        wanted: dict[tuple[UUID, bytes], list[int]] = {}
        for record in batch:
            if not 0 <= record.seq <= MAX_SAFE_INTEGER:
                raise InputError(f"record: seq {record.seq}, expected 0 to {MAX_SAFE_INTEGER}")
            wanted.setdefault((record.run, record.producer), []).append(record.seq)
        stored: dict[_Key, bytes] = {}
        for (run, producer), seqs in wanted.items():
            if (kept := self._of_archive(run)) is not None:
                own = [(run, producer, seq) for seq in seqs if (producer, seq) in kept]
                stored.update({key: kept[key[1:]].digest for key in own})
                continue
            for first, last in _stretches(sorted(seqs)):
                rows = self._read(
                    select(schema.records.c.seq, schema.records.c.digest).where(
                        schema.records.c.run == run,
                        schema.records.c.producer == producer,
                        schema.records.c.seq.between(first, last),
                    )
                )
                stored.update({(run, producer, row.seq): row.digest for row in rows})
        return stored

    def records(self, run: UUID, kinds: Iterable[Kind] | None = None) -> Sequence[StoredRecord]:
        if (kept := self._of_archive(run)) is not None:
            chosen = Kind if kinds is None else frozenset(kinds)
            return [record for record in kept.values() if record.kind in chosen]
        query = _RECORDS.where(schema.records.c.run == run)
        if kinds is None:
            return self._all(
                StoredRecord, query.order_by(schema.records.c.producer, schema.records.c.seq)
            )
        # Sorted here: an ORDER BY makes SQLite walk the whole run instead of the kinds.
        stored = self._all(StoredRecord, query.where(schema.records.c.kind.in_(list(kinds))))
        return sorted(stored, key=lambda record: (record.producer, record.seq))

    def archived(self, run: UUID) -> ArchivedRun | None:
        return self._one(ArchivedRun, _ARCHIVED.where(schema.archived_runs.c.run == run))

    def archived_runs(self) -> Sequence[ArchivedRun]:
        return self._all(ArchivedRun, _ARCHIVED.order_by(schema.archived_runs.c.run))

    def archive_run(self, row: ArchivedRun) -> None:
        self._write(delete(schema.records).where(schema.records.c.run == row.run))
        self._write(insert(schema.archived_runs).values(fields_of(row)))
        self._read_back.pop(row.run, None)

    def restore_run(self, run: UUID, now: float) -> int:
        kept = self._of_archive(run)
        if kept is None:
            raise UnknownRunError(f"run {run}: is not archived")
        self._write(delete(schema.archived_runs).where(schema.archived_runs.c.run == run))
        self._add_new(schema.records, [(*_VALUES(record), now) for record in kept.values()])
        self._read_back.pop(run)
        self._index_weights(kept.values())
        return len(kept)

    def _index_weights(self, records: Iterable[StoredRecord]) -> None:
        if rows := _epoch_weights(records):
            self._write(self._insert(schema.epoch_weights).on_conflict_do_nothing(), rows)

    def runs_of_weights(self, root: bytes, limit: int) -> Sequence[tuple[UUID, int]]:
        own = schema.epoch_weights.c
        query = select(own.run, func.max(own.epoch)).where(own.root == root)
        rows = self._read(query.group_by(own.run).order_by(own.run).limit(limit))
        return [(run, epoch) for run, epoch in rows]

    def _of_archive(self, run: UUID) -> dict[tuple[bytes, int], StoredRecord] | None:
        """An archived run's records by producer and ``seq``, in order, read once; None of a run
        that is not archived."""
        if run not in self._read_back:
            row, found = self.archived(run), None
            if row is not None and self._archive is None:
                problem = f"archived as {row.digest.hex()}, and no archive.folder is configured"
                raise IntegrityError(f"run {run}: {problem}, expected it in --config")
            if row is not None and self._archive is not None:
                records = self._archive.read(row)
                found = {(record.producer, record.seq): record for record in records}
            self._read_back[run] = found
        return self._read_back[run]

    def has_record(self, run: UUID, producer: bytes, seq: int) -> bool:
        if (kept := self._of_archive(run)) is not None:
            return (producer, seq) in kept
        record = schema.records.c
        mine = (record.run == run, record.producer == producer, record.seq == seq)
        return self._read(select(record.seq).where(*mine)).first() is not None

    def digests_from(
        self, run: UUID, producer: bytes, seq: int
    ) -> Iterator[tuple[int, bytes, bytes | None]]:
        record = schema.records.c
        rows = self._stream(
            select(record.seq, record.digest, record.chain)
            .where(record.run == run, record.producer == producer, record.seq >= seq)
            .order_by(record.seq)
        )
        return ((seq, digest, chain) for seq, digest, chain in rows)

    def producers(self, run: UUID) -> Sequence[ProducerRow]:
        query = _PRODUCERS.where(schema.producers.c.run == run)
        return self._all(ProducerRow, query.order_by(schema.producers.c.producer))

    def producer(self, run: UUID, producer: bytes) -> ProducerRow | None:
        mine = (schema.producers.c.run == run, schema.producers.c.producer == producer)
        return self._one(ProducerRow, _PRODUCERS.where(*mine))

    def save_producer(self, row: ProducerRow) -> None:
        self._replace(schema.producers, [fields_of(row)])

    def add_statement(self, row: StatementRow) -> None:
        self._add_once(schema.statements, fields_of(row) | {"kept": False})

    def statements(self, run: UUID) -> Sequence[StatementRow]:
        table = schema.statements.c
        query = _STATEMENTS.where(table.run == run).order_by(table.producer, table.count)
        return self._all(StatementRow, query)

    def unkept_statements(self, run: UUID, producer: bytes) -> Sequence[StatementRow]:
        table = schema.statements.c
        mine = (table.run == run, table.kept.is_(False), table.producer == producer)
        return self._all(StatementRow, _STATEMENTS.where(*mine).order_by(table.count))

    def keep_statements(self, run: UUID) -> None:
        table = schema.statements
        mine = (table.c.run == run, table.c.kept.is_(False))
        self._write(update(table).where(*mine).values(kept=True))

    def drop_statements(self, run: UUID, producer: bytes, counts: Iterable[int]) -> None:
        table = schema.statements.c
        self._write(
            delete(schema.statements).where(
                table.run == run,
                table.kept.is_(False),
                table.producer == producer,
                table.count.in_(list(counts)),
            )
        )

    def add_equivocation(self, equivocation: Equivocation) -> None:
        self._add_once(schema.equivocations, fields_of(equivocation))

    def equivocations(self, run: UUID | None = None) -> Sequence[Equivocation]:
        query = _EQUIVOCATIONS.order_by(*schema.equivocations.primary_key.columns)
        if run is not None:
            query = query.where(schema.equivocations.c.run == run)
        return self._all(Equivocation, query)

    def park(self, parked: Parked) -> None:
        self._share()
        table = schema.parked.c
        if self._read(select(table.id).where(table.id == parked.id)).first() is not None:
            return
        quotas = (
            (parked.run, _parked_of(parked.run), PARKED_OF_RUN),
            (None, true(), PARKED_IN_ALL),
        )
        for run, among, (rows, size) in quotas:
            held = select(func.count(), func.coalesce(func.sum(func.length(table.payload)), 0))
            count, used = self._read(held.where(among)).one()
            if count >= rows or used + len(parked.payload) > size:
                self._count_parked(replace(parked, run=run))
                return
        self._add_once(schema.parked, fields_of(parked))

    def _count_parked(self, parked: Parked) -> None:
        table = schema.parked.c
        mine = _PARKED.where(_parked_of(parked.run), table.reason.startswith(BEYOND))
        counted = self._one(Parked, mine)
        known = 0
        if counted is not None:
            known = int.from_bytes(counted.payload[-8:], "big")
            self._write(delete(schema.parked).where(table.id == counted.id))
        run = b"" if parked.run is None else parked.run.bytes
        payload = run + (known + 1).to_bytes(8, "big")
        row = Parked(
            hashlib.sha256(payload).hexdigest(),
            parked.run,
            f"{BEYOND}: {known + 1} more refused, the newest: {parked.reason}",
            payload,
            parked.parked_at,
        )
        self._add_once(schema.parked, fields_of(row))

    def hold(self, row: HeldRun) -> bool:
        number = select(func.count()).select_from(schema.held_runs)
        if self.held(row.run) is None and self._read(number).scalar_one() >= MAX_HELD_RUNS:
            return False
        self._replace(schema.held_runs, [fields_of(row)])
        return True

    def held(self, run: UUID) -> HeldRun | None:
        return self._one(HeldRun, _HELD.where(schema.held_runs.c.run == run))

    def held_runs(self, team: str | None, trainer: str | None, limit: int) -> Sequence[HeldRun]:
        row = schema.held_runs.c
        mine = (row.team.is_not_distinct_from(team), row.trainer.is_not_distinct_from(trainer))
        return self._all(HeldRun, _HELD.where(*mine).order_by(row.at).limit(limit))

    def held_counts(self) -> Mapping[tuple[str | None, str | None], int]:
        who = (schema.held_runs.c.team, schema.held_runs.c.trainer)
        rows = self._read(select(*who, func.count()).group_by(*who))
        return {(team, trainer): number for team, trainer, number in rows}

    def release(self, rows: Iterable[HeldRun], now: float) -> None:
        held = schema.held_runs
        for row in rows:
            self._write(delete(held).where(held.c.run == row.run, held.c.at == row.at))
            mine = update(schema.runs).where(schema.runs.c.run == row.run)
            self._write(mine.values(last_ingest=now))

    def forget_parked(self, run: UUID | None = None, ids: Iterable[str] | None = None) -> int:
        query = delete(schema.parked)
        if run is not None:
            query = query.where(schema.parked.c.run == run)
        if ids is not None:
            query = query.where(schema.parked.c.id.in_(list(ids)))
        return int(self._write(query).rowcount)

    def parked(self, run: UUID | None = None) -> Sequence[Parked]:
        query = _PARKED.order_by(schema.parked.c.parked_at, schema.parked.c.id)
        if run is not None:
            query = query.where(schema.parked.c.run == run)
        return self._all(Parked, query)


def _parked_of(run: UUID | None) -> ColumnElement[bool]:
    column = schema.parked.c.run
    return column.is_(None) if run is None else column == run


def _stretches(seqs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges ``(first, last)`` that cover the sorted numbers without wide gaps."""
    first = seqs[0]
    for before, after in pairwise(seqs):
        if after - before > _STRETCH_GAP:
            yield first, before
            first = after
    yield first, seqs[-1]
