"""What seals are made from: marks, the checkpoints that are due, and the trees as they grow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, bindparam, delete, func, or_, select, update

from provenance.errors import IntegrityError
from provenance.formats.record import EPOCH_KINDS, Kind, Phase
from provenance.formats.run_tree.selection import FREE_KINDS, SealMark
from provenance.formats.run_tree.tree import RecordLeaf
from provenance.ports.values import TreeRow
from provenance.stores.sql import schema
from provenance.stores.sql.schema import NO_EPOCH, due_checkpoints, held_runs, marks, run_trees
from provenance.stores.sql.session import Session, fields_of, values_in

_TREES: Final = values_in(TreeRow, run_trees)
_MARK: Final = ("phase", "epoch", "rank", "producer", "seq", "anchor", "ts")
_MARKS: Final = select(*(marks.c[name] for name in _MARK))


class SealingPart(Session):
    """See :class:`provenance.ports.store.LedgerTx`."""

    def tree(self, run: UUID) -> TreeRow | None:
        tree = self._one(TreeRow, _TREES.where(run_trees.c.run == run))
        octets = () if tree is None else (tree.leader, tree.data, tree.model, tree.training)
        if not all(isinstance(value, bytes) for value in octets):  # SQLite takes any type
            raise IntegrityError(f"run {run}: its kept tree does not read")
        return tree

    def save_tree(self, row: TreeRow) -> None:
        self._replace(run_trees, [fields_of(row)])

    def add_marks(self, run: UUID, new: Iterable[SealMark]) -> None:
        rows = [
            {
                "run": run,
                "phase": mark.phase,
                "epoch": NO_EPOCH if mark.epoch is None else mark.epoch,
                "producer": mark.producer,
                "seq": mark.seq,
                "rank": mark.rank,
                "anchor": mark.anchor,
                "ts": mark.order[0],
                "counts": False,
            }
            for mark in new
        ]
        adding = self._insert(marks)
        rest = {name: adding.excluded[name] for name in ("seq", "rank", "anchor", "ts")}
        self._write(
            adding.on_conflict_do_update(
                index_elements=list(marks.primary_key.columns),
                set_=rest,
                where=marks.c.seq > adding.excluded.seq,
            ),
            rows,
        )

    def marks(self, run: UUID, phase: Phase, epoch: int | None = None) -> Sequence[SealMark]:
        wanted = [*_at(run, phase, epoch)]
        if phase is Phase.CHECKPOINT:
            wanted.append(marks.c.counts)
        return self._all(_mark, _MARKS.where(*wanted).order_by(*_IN_ORDER))

    def is_marked(self, run: UUID, epoch: int) -> bool:
        query = select(marks.c.seq).where(*_at(run, Phase.CHECKPOINT, epoch)).limit(1)
        return self._read(query).first() is not None

    def checkpoint_marks(
        self, run: UUID, producer: bytes, first: int, end: int
    ) -> Sequence[SealMark]:
        mine = _MARKS.where(
            marks.c.run == run,
            marks.c.producer == producer,
            marks.c.seq >= first,
            marks.c.seq < end,
            marks.c.phase == Phase.CHECKPOINT,
        )
        return self._all(_mark, mine.order_by(marks.c.seq))

    def count_marks(self, run: UUID, producer: bytes, epochs: Iterable[int]) -> None:
        wanted = (
            marks.c.run == run,
            marks.c.phase == Phase.CHECKPOINT,
            marks.c.producer == producer,
            marks.c.epoch == bindparam("marked"),
        )
        counting = update(marks).where(*wanted).values(counts=True)
        self._write(counting, [{"marked": epoch} for epoch in epochs])

    def marked_epochs(self, run: UUID, above: int, below: int | None = None) -> Sequence[int]:
        query = select(marks.c.epoch).where(
            marks.c.run == run, marks.c.phase == Phase.CHECKPOINT, marks.c.epoch > above
        )
        if below is not None:
            query = query.where(marks.c.epoch < below)
        return list(self._read(query.distinct().order_by(marks.c.epoch)).scalars())

    def add_due(self, run: UUID, ranks: int, epochs: Iterable[int] | None = None) -> None:
        ready = (
            select(marks.c.run, marks.c.epoch)
            .where(
                marks.c.run == run,
                marks.c.phase == Phase.CHECKPOINT,
                marks.c.counts,
                marks.c.rank < ranks,
            )
            .group_by(marks.c.run, marks.c.epoch)
            .having(func.count(marks.c.rank.distinct()) >= ranks)
        )
        if epochs is not None:
            ready = ready.where(marks.c.epoch.in_(list(epochs)))
        adding = self._insert(due_checkpoints).from_select(["run", "epoch"], ready)
        self._write(adding.on_conflict_do_nothing())

    def next_due(self, run: UUID, above: int) -> int | None:
        due = due_checkpoints.c
        query = select(func.min(due.epoch)).where(due.run == run, due.epoch > above)
        return self._read(query).scalar()

    def drop_due(self, run: UUID, upto: int | None = None) -> None:
        query = delete(due_checkpoints).where(due_checkpoints.c.run == run)
        self._write(query if upto is None else query.where(due_checkpoints.c.epoch <= upto))

    def awaiting_seal(self, idle_since: float = -math.inf) -> Sequence[UUID]:
        runs, record = schema.runs.c, schema.records.c
        closed, epochs, free = run_trees.c.closed, list(EPOCH_KINDS), list(FREE_KINDS)
        unsealed = or_(
            and_(record.epoch > closed, record.kind.in_(epochs)),
            and_(closed < 0, record.kind.in_(free)),
        )
        own = select(record.seq).where(record.run == runs.run, run_trees.c.run == runs.run)
        held = select(held_runs.c.run).where(held_runs.c.run == runs.run)
        lost = and_(runs.last_ingest <= idle_since, own.where(unsealed).exists(), ~held.exists())
        unmade = or_(
            marks.c.phase == Phase.AFTER,
            and_(
                marks.c.phase == Phase.BEFORE,
                ~select(run_trees.c.run).where(run_trees.c.run == marks.c.run).exists(),
            ),
        )
        query = (
            select(runs.run)
            .where(
                runs.state == "open",
                or_(
                    select(marks.c.run).where(marks.c.run == runs.run, unmade).exists(),
                    select(due_checkpoints.c.run).where(due_checkpoints.c.run == runs.run).exists(),
                    *([lost] if math.isfinite(idle_since) else []),
                ),
            )
            .order_by(runs.created_at)
        )
        return list(self._read(query).scalars())

    def leaves(
        self,
        run: UUID,
        kinds: Iterable[Kind],
        *,
        above: int | None = None,
        upto: int | None = None,
        producer: bytes | None = None,
        below_seq: int | None = None,
    ) -> Iterator[RecordLeaf]:
        record = schema.records.c
        query = select(
            record.kind, record.epoch, record.rank, record.ts, record.producer, record.seq,
            record.digest,
        ).where(record.run == run, record.kind.in_(list(kinds)))  # fmt: skip
        if above is not None:
            query = query.where(record.epoch > above).order_by(record.epoch)
        if upto is not None:
            query = query.where(record.epoch <= upto)
        if producer is not None:
            query = query.where(record.producer == producer)
        if below_seq is not None:
            query = query.where(record.seq < below_seq)
        for kind, epoch, rank, ts, producer, seq, digest in self._stream(query):
            yield RecordLeaf(kind.value, epoch, rank, (ts, producer.hex(), seq), digest)

    def chain_at(self, run: UUID, producer: bytes, count: int) -> bytes | None:
        record = schema.records.c
        mine = (record.run == run, record.producer == producer, record.seq == count - 1)
        return self._read(select(record.chain).where(*mine)).scalar_one_or_none()

    def set_chains(self, run: UUID, producer: bytes, chains: Sequence[tuple[int, bytes]]) -> None:
        record = schema.records.c
        mine = (record.run == run, record.producer == producer, record.seq == bindparam("at"))
        moving = update(schema.records).where(*mine).values(chain=bindparam("upto"))
        if chains:
            self._write(moving, [{"at": seq, "upto": chain} for seq, chain in chains])

    def ended_ranks(self, run: UUID, size: int) -> int:
        producer = schema.producers.c
        query = select(func.count(producer.rank.distinct())).where(
            producer.run == run,
            producer.ended.is_not(None),
            func.coalesce(producer.end_state, "").not_in(("failed", "interrupted")),
            producer.rank < size,
        )
        return int(self._read(query).scalar_one())


_IN_ORDER: Final = (marks.c.ts, marks.c.producer, marks.c.seq)


def _at(run: UUID, phase: Phase, epoch: int | None) -> tuple[ColumnElement[bool], ...]:
    at = NO_EPOCH if epoch is None else epoch
    return marks.c.run == run, marks.c.phase == phase, marks.c.epoch == at


def _mark(
    phase: Phase, epoch: int, rank: int, producer: bytes, seq: int, anchor: bool, ts: str
) -> SealMark:
    known = None if epoch == NO_EPOCH else epoch
    return SealMark(phase, known, rank, producer, seq, anchor, (ts, producer.hex(), seq))
