"""Runs, records, equivocations and parked batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, insert, select, update

from provenance.errors import InputError, UnknownRunError
from provenance.formats.record import MAX_SAFE_INTEGER, Kind
from provenance.ports.values import Equivocation, Inserted, Parked, RunRow, StoredRecord
from provenance.stores.sql import schema
from provenance.stores.sql.session import Session, fields_of, values_in

_Key = tuple[UUID, bytes, int]
_STRETCH_GAP: Final = 64
"""Two known sequence numbers this close are looked up in one range."""

_RUNS: Final = values_in(RunRow, schema.runs)
_RECORDS: Final = values_in(StoredRecord, schema.records)
_EQUIVOCATIONS: Final = values_in(Equivocation, schema.equivocations)
_PARKED: Final = values_in(Parked, schema.parked)


class RecordsPart(Session):
    """What ingest writes; see :class:`provenance.ports.store.LedgerTx`."""

    def run(self, run: UUID) -> RunRow | None:
        """None if absent."""
        return self._one(RunRow, _RUNS.where(schema.runs.c.run == run))

    def runs(self) -> Sequence[RunRow]:
        """Oldest first."""
        return self._all(RunRow, _RUNS.order_by(schema.runs.c.created_at, schema.runs.c.run))

    def add_run(self, run: UUID, public_key: bytes, now: float) -> RunRow:
        """Insert, or return the existing row (the first public key stands)."""
        self._add_once(
            schema.runs, {"run": run, "public_key": public_key, "state": "open", "created_at": now}
        )
        row = self.run(run)
        assert row is not None
        return row

    def seal_run(self, run: UUID, now: float, incomplete: str | None) -> None:
        """The first seal stands. Raises UnknownRunError."""
        sealed = self._write(
            update(schema.runs)
            .where(schema.runs.c.run == run, schema.runs.c.state == "open")
            .values(state="sealed", sealed_at=now, incomplete=incomplete)
        )
        if not sealed.rowcount and self.run(run) is None:
            raise UnknownRunError(f"no run {run} in the database")

    def insert_records(self, records: Sequence[StoredRecord], now: float) -> list[Inserted]:
        """By key; one answer per record, in order. Raises InputError for a seq out of range."""
        known = self._digests(records)
        outcome: list[Inserted] = []
        new: list[dict[str, Any]] = []
        for record in records:
            key = (record.run, record.producer, record.seq)
            if key not in known:
                known[key] = record.digest
                outcome.append(Inserted.NEW)
                new.append(fields_of(record) | {"stored_at": now})
            elif known[key] == record.digest:
                outcome.append(Inserted.DUPLICATE)
            else:
                outcome.append(Inserted.CONFLICT)
        if new:
            self._write(insert(schema.records), new)
            self._write(
                update(schema.runs)
                .where(
                    schema.runs.c.run.in_({row["run"] for row in new}),
                    func.coalesce(schema.runs.c.last_ingest, now) <= now,
                )
                .values(last_ingest=now)
            )
        return outcome

    def last_ingest(self, run: UUID) -> float | None:
        """Seconds since 1970; None without records."""
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
        """By ``(producer, seq)``; of all kinds where None."""
        query = _RECORDS.where(schema.records.c.run == run)
        if kinds is None:
            return self._all(
                StoredRecord, query.order_by(schema.records.c.producer, schema.records.c.seq)
            )
        # Sorted here: an ORDER BY makes SQLite walk the whole run instead of the kinds.
        stored = self._all(StoredRecord, query.where(schema.records.c.kind.in_(list(kinds))))
        return sorted(stored, key=lambda record: (record.producer, record.seq))

    def contiguous(self, run: UUID) -> Mapping[bytes, tuple[int, int]]:
        """Per producer ``(events from 0 without a hole, highest seq + 1)``."""
        counted = self._read(
            select(schema.records.c.producer, func.count(), func.max(schema.records.c.seq) + 1)
            .where(schema.records.c.run == run)
            .group_by(schema.records.c.producer)
        )
        return {
            producer: (events if stored == events else self._first_hole(run, producer), events)
            for producer, stored, events in counted.all()
        }

    def _first_hole(self, run: UUID, producer: bytes) -> int:
        record, after = schema.records.c, schema.records.alias("after").c
        mine = (record.run == run, record.producer == producer)
        if self._read(select(record.seq).where(*mine, record.seq == 0)).first() is None:
            return 0
        follows = select(after.seq).where(
            after.run == run, after.producer == producer, after.seq == record.seq + 1
        )
        edge = select(record.seq + 1).where(*mine, ~follows.exists())
        return int(self._read(edge.order_by(record.seq).limit(1)).scalar_one())

    def add_equivocation(self, equivocation: Equivocation) -> None:
        """Once by ``(run, producer, seq, digest)``."""
        self._add_once(schema.equivocations, fields_of(equivocation))

    def equivocations(self, run: UUID | None = None) -> Sequence[Equivocation]:
        """By ``(run, producer, seq, digest)``."""
        query = _EQUIVOCATIONS.order_by(*schema.equivocations.primary_key.columns)
        if run is not None:
            query = query.where(schema.equivocations.c.run == run)
        return self._all(Equivocation, query)

    def park(self, parked: Parked) -> None:
        """Once by id."""
        self._add_once(schema.parked, fields_of(parked))

    def parked(self, run: UUID | None = None) -> Sequence[Parked]:
        """Oldest first."""
        query = _PARKED.order_by(schema.parked.c.parked_at, schema.parked.c.id)
        if run is not None:
            query = query.where(schema.parked.c.run == run)
        return self._all(Parked, query)


def _stretches(seqs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges ``(first, last)`` that cover the sorted numbers without wide gaps."""
    first = seqs[0]
    for before, after in pairwise(seqs):
        if after - before > _STRETCH_GAP:
            yield first, before
            first = after
    yield first, seqs[-1]
