"""Runs, records, equivocations and parked batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, func, insert, select, update

from provenance.errors import InputError, UnknownRunError
from provenance.formats.record import MAX_SAFE_INTEGER, Kind
from provenance.ports.values import Equivocation, Inserted, Parked, RunRow, StoredRecord
from provenance.stores import schema
from provenance.stores.sql_session import Session

_Key = tuple[UUID, bytes, int]
_STRETCH_GAP: Final = 64
"""Two known sequence numbers this close are looked up in one range."""


class RecordsPart(Session):
    """What ingest writes."""

    def run(self, run: UUID) -> RunRow | None:
        row = self._read(select(schema.runs).where(schema.runs.c.run == run)).one_or_none()
        return None if row is None else _run(row)

    def runs(self) -> Sequence[RunRow]:
        rows = self._read(select(schema.runs).order_by(schema.runs.c.created_at, schema.runs.c.run))
        return [_run(row) for row in rows]

    def add_run(self, run: UUID, public_key: bytes, now: float) -> RunRow:
        self._write(
            self._upsert(schema.runs)
            .values(run=run, public_key=public_key, state="open", created_at=now)
            .on_conflict_do_nothing()
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

    def insert_record(self, record: StoredRecord, now: float) -> Inserted:
        return self.insert_records([record], now)[0]

    def insert_records(self, records: Sequence[StoredRecord], now: float) -> list[Inserted]:
        known = self._digests(records)
        outcome: list[Inserted] = []
        new: list[dict[str, Any]] = []
        for record in records:
            key = (record.run, record.producer, record.seq)
            digest = known.get(key)
            if digest is not None:
                same = digest == record.digest
                outcome.append(Inserted.DUPLICATE if same else Inserted.CONFLICT)
                continue
            known[key] = record.digest
            outcome.append(Inserted.NEW)
            new.append(
                {
                    "run": record.run,
                    "producer": record.producer,
                    "seq": record.seq,
                    "kind": record.kind.value,
                    "epoch": record.epoch,
                    "rank": record.rank,
                    "digest": record.digest,
                    "data": record.data,
                    "stored_at": now,
                }
            )
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
        found: dict[_Key, bytes] = {}
        for (run, producer), seqs in wanted.items():
            for first, last in _stretches(sorted(seqs)):
                rows = self._read(
                    select(schema.records.c.seq, schema.records.c.digest).where(
                        schema.records.c.run == run,
                        schema.records.c.producer == producer,
                        schema.records.c.seq.between(first, last),
                    )
                )
                found.update({(run, producer, row.seq): row.digest for row in rows})
        return found

    def records(self, run: UUID, kinds: Iterable[Kind] | None = None) -> Sequence[StoredRecord]:
        query = select(schema.records).where(schema.records.c.run == run)
        if kinds is None:
            query = query.order_by(schema.records.c.producer, schema.records.c.seq)
        else:
            query = query.where(schema.records.c.kind.in_([kind.value for kind in kinds]))
        found = [_record(row) for row in self._read(query)]
        if kinds is not None:
            # Sorted here: an ORDER BY makes SQLite walk the whole run instead of the kinds.
            found.sort(key=lambda record: (record.producer, record.seq))
        return found

    def contiguous(self, run: UUID) -> Mapping[bytes, tuple[int, int]]:
        counted = self._read(
            select(
                schema.records.c.producer,
                func.count().label("stored"),
                func.max(schema.records.c.seq).label("highest"),
            )
            .where(schema.records.c.run == run)
            .group_by(schema.records.c.producer)
        )
        result: dict[bytes, tuple[int, int]] = {}
        for row in counted.all():
            events = row.highest + 1
            whole = row.stored == events
            upto = events if whole else self._first_hole(run, row.producer)
            result[row.producer] = (upto, events)
        return result

    def _first_hole(self, run: UUID, producer: bytes) -> int:
        mine = (schema.records.c.run == run, schema.records.c.producer == producer)
        if (
            self._read(select(schema.records.c.seq).where(*mine, schema.records.c.seq == 0)).first()
            is None
        ):
            return 0
        after = schema.records.alias("after")
        edge = self._read(
            select(schema.records.c.seq + 1)
            .where(
                *mine,
                ~select(after.c.seq)
                .where(
                    after.c.run == run,
                    after.c.producer == producer,
                    after.c.seq == schema.records.c.seq + 1,
                )
                .exists(),
            )
            .order_by(schema.records.c.seq)
            .limit(1)
        )
        return int(edge.scalar_one())

    def add_equivocation(self, equivocation: Equivocation) -> None:
        self._write(
            self._upsert(schema.equivocations)
            .values(
                run=equivocation.run,
                producer=equivocation.producer,
                seq=equivocation.seq,
                digest=equivocation.digest,
                data=equivocation.data,
                seen_at=equivocation.seen_at,
            )
            .on_conflict_do_nothing()
        )

    def equivocations(self, run: UUID | None = None) -> Sequence[Equivocation]:
        """By ``(run, producer, seq, digest)``."""
        query = select(schema.equivocations).order_by(*schema.equivocations.primary_key.columns)
        if run is not None:
            query = query.where(schema.equivocations.c.run == run)
        return [
            Equivocation(row.run, row.producer, row.seq, row.digest, row.data, row.seen_at)
            for row in self._read(query)
        ]

    def park(self, parked: Parked) -> None:
        self._write(
            self._upsert(schema.parked)
            .values(
                id=parked.id,
                run=parked.run,
                reason=parked.reason,
                payload=parked.payload,
                parked_at=parked.parked_at,
            )
            .on_conflict_do_nothing()
        )

    def parked(self, run: UUID | None = None) -> Sequence[Parked]:
        """Oldest first."""
        query = select(schema.parked).order_by(schema.parked.c.parked_at, schema.parked.c.id)
        if run is not None:
            query = query.where(schema.parked.c.run == run)
        return [
            Parked(row.id, row.run, row.reason, row.payload, row.parked_at)
            for row in self._read(query)
        ]


def _run(row: Row[Any]) -> RunRow:
    return RunRow(row.run, row.public_key, row.state, row.created_at, row.sealed_at, row.incomplete)


def _record(row: Row[Any]) -> StoredRecord:
    return StoredRecord(
        run=row.run,
        producer=row.producer,
        seq=row.seq,
        kind=Kind(row.kind),
        epoch=row.epoch,
        rank=row.rank,
        digest=row.digest,
        data=row.data,
    )


def _stretches(seqs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges ``(first, last)`` that cover the sorted numbers without wide gaps."""
    first = seqs[0]
    for before, after in pairwise(seqs):
        if after - before > _STRETCH_GAP:
            yield first, before
            first = after
    yield first, seqs[-1]
