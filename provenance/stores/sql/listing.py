"""The list of runs: a row for each, moved on at the end of the transaction that brings records; and
what an operator asks of the networks, counted by the database."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, String, bindparam, case, cast, func, insert, select, update

from provenance.errors import FormatError
from provenance.evidence.run_summary import ENDING, SUMMARISED, moved_on
from provenance.evidence.story import state_of
from provenance.formats.record import Kind, Record
from provenance.ports.listing import NetworkTally, RunSummary, TeamUse, Wanted
from provenance.ports.values import AnchorRow, AnchorState, RunRow, StoredRecord
from provenance.stores.sql.column_types import Lines
from provenance.stores.sql.ledger import LedgerPart
from provenance.stores.sql.outbox import OutboxPart
from provenance.stores.sql.records import RecordsPart
from provenance.stores.sql.schema import (
    anchors,
    equivocations,
    held_runs,
    ledger_entries,
    parked,
    runs,
    summaries,
)
from provenance.stores.sql.session import columns_of, fields_of, values_in

# Made once: of a small batch they would cost as much as what they do.
_ONE: Final = values_in(RunSummary, summaries).where(summaries.c.run == bindparam("of"))
_NEW: Final = insert(summaries)
_MOVED: Final = (
    update(summaries)
    .where(summaries.c.run == bindparam("of"))
    .values({column.name: bindparam(f"new_{column.name}") for column in summaries.c})
)
_STARTS: Final = (Kind.CONFIG, Kind.RUN_END)
DAY_S: Final = 86400
_LIVE: Final = tuple(set(AnchorState) - {AnchorState.REPLACED, AnchorState.FAILED})
_BLOCKS: Final = 20
"""Anchors whose blocks tell a network's pace."""


class ListingPart(RecordsPart, LedgerPart, OutboxPart):
    """See :class:`provenance.ports.store.LedgerTx`."""

    def settle(self) -> None:
        """At the end of a transaction: the summaries of the runs whose records it brought."""
        arrived: dict[UUID, list[StoredRecord]] = {
            run: [] for run in (*self._sealed, *self._joined)
        }
        for record in self._arrived:
            arrived.setdefault(record.run, []).append(record)
        for run, own in arrived.items():
            known = self._one(RunSummary, _ONE.params(of=run))
            row = fields_of(self._moved_on(known or RunSummary(run), own))
            if known is None:
                self._write(_NEW, [row])
            else:
                self._write(_MOVED, [{"of": run} | {f"new_{k}": v for k, v in row.items()}])

    def _moved_on(self, known: RunSummary, new: Sequence[StoredRecord]) -> RunSummary:
        run = known.run
        told = [row for row in new if row.kind in SUMMARISED]
        for kind in (Kind.METRICS, Kind.STEPS):
            own = (row for row in new if row.kind is kind)
            newest = max(own, key=lambda row: (row.epoch or 0, row.ts), default=None)
            told += [] if newest is None else [newest]
        summary = moved_on(known, _decoded(told), [row.ts for row in new])
        if new:
            summary = _counted(summary, sum(len(row.data) for row in new), self._arrived_at)
        if run in self._joined and summary.joined is None:
            team, joined = self._joined[run]
            summary = replace(summary, team=team, joined=joined)
        starts = any(row.kind in _STARTS for row in new)
        again = known.state != "running" and any(row.seq == 0 for row in new)
        if not (starts or again or run in self._sealed):
            return summary
        ended = state_of(list(_decoded(self.records(run, ENDING))), self.entries(run), 0.0, inf)
        return replace(summary, **ended._asdict())

    def list_runs(self, wanted: Wanted) -> tuple[Sequence[tuple[RunRow, RunSummary]], int]:
        state = _state(wanted)
        columns = [
            state if c is summaries.c.state else c for c in columns_of(RunSummary, summaries)
        ]
        matching = self._matching(wanted, state)
        own = columns_of(RunRow, runs)
        query = select(*own, *columns).outerjoin_from(runs, summaries).where(*matching)
        query = query.order_by(
            *_order(wanted.sort, state), runs.c.created_at.desc(), runs.c.run.desc()
        )
        query = query.limit(wanted.size).offset((wanted.page - 1) * wanted.size)
        found = []
        for row in self._read(query):
            of_row, of_summary = tuple(row)[: len(own)], tuple(row)[len(own) :]
            stored = RunRow(*of_row)
            known = of_summary[0] is not None
            found.append((stored, RunSummary(*of_summary) if known else RunSummary(stored.run)))
        count = select(func.count()).select_from(runs.outerjoin(summaries)).where(*matching)
        return found, self._read(count).scalar_one()

    def join(self, run: UUID, team: str | None, day: int) -> None:
        self._joined[run] = team, day

    def teams_of(self, of: Collection[UUID]) -> Mapping[UUID, str | None]:
        own = (summaries.c.run.in_(list(of)), summaries.c.joined.is_not(None))
        query = select(summaries.c.run, summaries.c.team).where(*own)
        return {row.run: row.team for row in self._read(query)}

    def early_bytes(self, run: UUID) -> int:
        own = (summaries.c.run == run, summaries.c.joined.is_(None))
        return self._read(select(summaries.c.day_bytes).where(*own)).scalar_one_or_none() or 0

    def team_use(self, day: int, team: str | None = None) -> Mapping[str, TeamUse]:
        began = func.count(case((summaries.c.joined == day, 1)))
        query = select(summaries.c.team, began, func.sum(summaries.c.day_bytes))
        named = summaries.c.team.is_not(None) if team is None else summaries.c.team == team
        query = query.where(summaries.c.day == day, named).group_by(summaries.c.team)
        return {name: TeamUse(number, int(size)) for name, number, size in self._read(query)}

    def run_states(self, wanted: Wanted) -> Mapping[str, int]:
        state = _state(wanted).label("now")
        query = select(state, func.count()).select_from(runs.outerjoin(summaries))
        query = query.where(*self._matching(wanted, _state(wanted))).group_by(state)
        return {row[0]: row[1] for row in self._read(query)}

    def _matching(self, wanted: Wanted, state: ColumnElement[str]) -> list[ColumnElement[bool]]:
        rules = list[ColumnElement[bool]]()
        if wanted.run is not None:
            rules.append(runs.c.run == wanted.run)
        if wanted.among is not None:
            rules.append(summaries.c.team == wanted.among)
        if wanted.state is not None:
            rules.append(state == wanted.state)
        for label in ("team", "group"):
            if (value := getattr(wanted, label)) is not None:
                rules.append(summaries.c[label] == value)
        if wanted.since is not None:
            rules.append(func.coalesce(runs.c.last_ingest, runs.c.created_at) >= wanted.since)
        for tag in wanted.tags:
            rules.append(cast(summaries.c.tags, String).contains(Lines.line(tag), autoescape=True))
        if wanted.name:
            named = summaries.c.name.icontains(wanted.name, autoescape=True)
            if digits := wanted.name.replace("-", "").lower():
                run = func.replace(cast(runs.c.run, String), "-", "")
                named |= run.contains(digits, autoescape=True)
            rules.append(named)
        if wanted.network is not None:
            final = self.reach(wanted.network, [AnchorState.FINAL])
            waiting = select(ledger_entries.c.run)
            rules.append(runs.c.run.in_(waiting.where(*_waiting(final))))
        return rules

    def tally(self, network: str) -> NetworkTally:
        final = self.reach(network, [AnchorState.FINAL])
        waiting = select(func.count(), func.min(ledger_entries.c.created_at))
        number, oldest = self._read(waiting.where(*_waiting(final))).one()
        newest = self._one(
            AnchorRow,
            values_in(AnchorRow, anchors)
            .where(anchors.c.network == network, anchors.c.state.in_(_LIVE))
            .order_by(anchors.c.size.desc())
            .limit(1),
        )
        problem = (
            select(anchors.c.reason)
            .where(
                anchors.c.network == network,
                anchors.c.size > final,
                anchors.c.state.in_(_LIVE)
                | (anchors.c.state == AnchorState.FAILED)
                & (anchors.c.size > (newest.size if newest else 0)),
                anchors.c.reason.is_not(None),
                anchors.c.state != AnchorState.HELD,  # persons are waited for: nothing is wrong
            )
            .order_by(anchors.c.size.desc())
            .limit(1)
        )
        mined = (
            select(anchors.c.height, anchors.c.block_time)
            .where(anchors.c.network == network, anchors.c.block_time.is_not(None))
            .order_by(anchors.c.size.desc())
            .limit(_BLOCKS)
            .subquery()
        )
        ends = [end(column) for column in mined.c for end in (func.min, func.max)]
        low, high, first, last = self._read(select(*ends)).one()
        paid, payments = self._read(
            select(func.sum(anchors.c.paid), func.count(anchors.c.paid)).where(
                anchors.c.network == network
            )
        ).one()
        covered = self.reach(network, [AnchorState.FINAL, AnchorState.CONFIRMED])
        number_of_runs = select(func.count(ledger_entries.c.run.distinct())).where(
            ledger_entries.c.anchor, ledger_entries.c.index < covered
        )
        return NetworkTally(
            final=final,
            waiting=number,
            waiting_since=oldest,
            newest=newest,
            problem=self._read(problem).scalar(),
            block_s=(last - first) / (high - low) if low is not None and high > low else None,
            paid=paid if payments else None,
            runs=self._read(number_of_runs).scalar_one(),
        )

    def totals(self, run: UUID | None = None) -> tuple[int, int, int]:
        counts = [select(func.count()).where(ledger_entries.c.anchor)]
        counts += [select(func.count()).select_from(table) for table in (parked, equivocations)]
        if run is not None:
            tables = (ledger_entries, parked, equivocations)
            counts = [q.where(t.c.run == run) for q, t in zip(counts, tables, strict=True)]
        roots, refused, twice = (self._read(query).scalar_one() for query in counts)
        return roots, refused, twice


def _counted(summary: RunSummary, nbytes: int, now: float) -> RunSummary:
    """With bytes that came now."""
    today = int(now // DAY_S)
    before = summary.day_bytes if summary.day == today or summary.joined is None else 0
    return replace(summary, day=today, day_bytes=before + nbytes)


def _state(wanted: Wanted) -> ColumnElement[str]:
    """Of a run now: who gave no sign of life for so long is lost, but for what is held back."""
    known = func.coalesce(summaries.c.state, "running")
    if wanted.lost_after_s == inf:
        return known
    quiet = runs.c.last_ingest <= wanted.now - wanted.lost_after_s
    held = select(held_runs.c.run).where(held_runs.c.run == runs.c.run).exists()
    return case(((known == "running") & quiet & ~held, "lost"), else_=known)


def _order(sort: str, state: ColumnElement[str]) -> list[ColumnElement[Any]]:
    """What comes first; within it the newest runs do."""
    if sort == "created":
        return []
    if sort == "seen":
        return [summaries.c.seen.is_(None), summaries.c.seen.desc()]
    if sort == "state":
        return [state]
    column = summaries.c[sort]
    return [column.is_(None), func.lower(column)]


def _waiting(final: int) -> tuple[ColumnElement[bool], ...]:
    return ledger_entries.c.anchor, ledger_entries.c.index >= final


def _decoded(rows: Iterable[StoredRecord]) -> Iterator[Record]:
    for row in rows:
        with suppress(FormatError):  # `provenance verify` names it
            yield Record.decode(row.data)
