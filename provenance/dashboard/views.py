"""What the pages and the API say, read in one snapshot of the database each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Final
from uuid import UUID

from provenance.anchor.outbox import ACTIVE
from provenance.app import bundle
from provenance.app.health import ages, limit_s
from provenance.app.run_list import ListedRun, list_runs
from provenance.app.verify import own_trust
from provenance.bootstrap import guarding, reading
from provenance.dashboard.values import (
    MAX_SEALS,
    MAX_WAITING,
    Anchor,
    Head,
    Health,
    Ledger,
    NetworkView,
    Queue,
    Run,
    RunDetail,
    RunPage,
    Seal,
)
from provenance.errors import (
    BadSignatureError,
    ConfigError,
    FormatError,
    LedgerForkError,
    ProvenanceError,
    UnavailableError,
    UnknownRunError,
)
from provenance.evidence.from_database import anchor_fact
from provenance.evidence.run_evidence import seal_label
from provenance.ledger.seal import waits_for
from provenance.operations.overview import (
    NetworkStanding,
    Overview,
    network_document,
    overview,
)
from provenance.operations.words import anchored, notes, team_line
from provenance.ports.listing import Wanted
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import (
    AnchorRow,
    AnchorState,
    HeadRow,
    LedgerEntry,
)
from provenance.settings import Settings, TeamSettings
from provenance.verify.identity import check_identity

MAX_ANCESTORS: Final = 20
_WHY: Final = "an operator sees why: provenance ledger head"


@contextmanager
def snapshot(settings: Settings) -> Iterator[LedgerTx]:
    """One state of the database. UnknownRunError where there is none yet."""
    with reading.opened_store(settings, "runs") as store, store.snapshot() as tx:
        yield tx


def runs(settings: Settings, wanted: Wanted) -> RunPage:
    """A page of runs; none where there is no database yet."""
    found: list[ListedRun] = []
    total, store = 0, reading.open_store(settings)
    if store is not None:
        with closing(store), store.snapshot() as tx:
            found, total = list_runs(tx, wanted)
    return RunPage([_run(item) for item in found], total, wanted.page, wanted.size)


def require_own(settings: Settings, team: str, named: Sequence[str]) -> None:
    """UnknownRunError where one of these ids is no run of the team: what it is then is not told."""
    with snapshot(settings) as tx:
        for text in named:
            with suppress(ValueError):
                if team in tx.teams_of([UUID(text)]).values():
                    continue
            raise UnknownRunError(f"run {text[:100]}: the database has no such run")


def run(settings: Settings, run_id: UUID, team: str | None = None) -> RunDetail:
    """A run; its ancestors up to the first that is not the team's. UnknownRunError where there is
    none."""
    trust = own_trust(settings, reading.ledger_key(settings))
    with snapshot(settings) as tx:
        found, _ = list_runs(tx, _wanted(settings, run_id, team))
        if not found:
            raise UnknownRunError(f"run {run_id}: the database has no such run")
        item, row = found[0], found[0].row
        entries = tx.entries(run_id)
        shown = [*entries[:1], *entries[1:][-(MAX_SEALS - 1) :]]
        identity, trainer, problem = None, None, None
        if row.identity is not None:
            try:
                standing = check_identity(row.identity, row.run, row.public_key, trust)
                identity, trainer = standing.identity.label, standing.trainer
                problem = standing.unchecked
            except (FormatError, BadSignatureError) as error:
                problem = str(error)
        known = {trainer, *settings.teams.get(team or "", TeamSettings()).trainers}
        return RunDetail(
            run=_run(item),
            public_key=row.public_key.hex(),
            identity=identity,
            identity_problem=problem,
            trainer=trainer,
            pinned=[
                *(f"ledger key {pin.key.vkey}: {pin.by}" for pin in trust.ledger_keys),
                *(f"{pin.network} {pin.id or ''}".strip() + f": {pin.by}" for pin in trust.chains),
                *(f"trainer {name}" for name in trust.trainers if team is None or name in known),
                *(f"witness {key.vkey}" for key in trust.witnesses),
            ],
            created_at=row.created_at,
            sealed_at=row.sealed_at,
            archived=kept.digest.hex() if (kept := tx.archived(run_id)) else None,
            waits_for=waits_for(tx, run_id),
            seals=_seals(tx, settings, shown),
            seals_total=len(entries),
            ancestors=[_run(each) for each in _ancestors(tx, settings, item, team)],
            bundles=[str(noted["cid"]) for noted in bundle.noted(settings, run_id)],
        )


def ledger(settings: Settings, end: int | None, limit: int, team: str | None = None) -> Ledger:
    """The entries below ``end`` (all where None), the newest ``limit`` of them; of another team's
    run without its name."""
    key = reading.ledger_key(settings)
    vkey = None if key is None else key.vkey
    try:
        with reading.opened_store(settings, "ledger") as store:
            refused, unchecked = _history(settings, store, team)
            with store.snapshot() as tx:
                size = tx.ledger_size()
                stop = size if end is None else min(end, size)
                first = max(0, stop - limit)
                entries = tx.entries(first=first, end=stop) if stop else ()
                heads = [head for head in tx.heads(first + 1, limit) if head.size <= stop]
                newest = tx.head()
                shown = _seals(tx, settings, entries)[::-1]
                if team is not None:
                    shown = _named(tx, shown, team)
                return Ledger(
                    origin=settings.origin,
                    key=vkey,
                    size=size,
                    refused=refused,
                    unchecked=unchecked,
                    newest=None if newest is None else _head(newest),
                    entries=shown,
                    heads=[_head(head) for head in reversed(heads)],
                    next=first or None,
                )
    except UnknownRunError as error:
        return Ledger(settings.origin, vkey, 0, None, str(error), None, [], [], None)


def _history(
    settings: Settings, store: LedgerStore, team: str | None
) -> tuple[str | None, str | None]:
    """`Ledger.refused` and `Ledger.unchecked`; to a team without the reason, which names files."""
    try:
        guarding.known_guard(settings).compare(store)
    except LedgerForkError as error:
        return _WHY if team is not None else str(error), None
    except (ConfigError, UnavailableError) as error:
        return None, _WHY if team is not None else str(error)
    return None, None


def heads(settings: Settings, first: int, limit: int) -> list[Head]:
    """Signed heads by size, from ``first`` on."""
    with snapshot(settings) as tx:
        return [_head(head) for head in tx.heads(first, limit)]


def networks(settings: Settings, team: str | None = None) -> list[NetworkView]:
    """The networks of the configuration; to a team without what they cost all."""
    seen, now = _seen(settings), time.time()
    if not seen.has_database:
        return []
    with snapshot(settings) as tx:
        views = [_network(tx, name, standing, now) for name, standing in seen.networks.items()]
    if team is None:
        return views
    return [replace(view, cost=None, cost_per_run=None) for view in views]


def health(settings: Settings, team: str | None = None) -> Health:
    """How old the newest task of each queue is, whether everything is anchored, what waits; to a
    team its own runs, and of the rest whether it works."""
    seen, limit = _seen(settings, team), limit_s(settings)
    queues = list(_queues(settings, limit))
    found = Health(
        healthy=seen.exit_code == 0 and not any(queue.stale for queue in queues),
        anchored=anchored(seen, time.time()),
        notes=list(notes(seen)),
        queues=queues,
        limit_s=limit,
        spool_bytes=seen.spool_bytes,
        stream_entries=seen.stream_entries,
        parked=seen.parked,
        equivocations=seen.equivocations,
        runs=dict(seen.states),
    )
    if team is None:
        return found
    own = [f"{count} {state}" for state, count in seen.states.items()]
    if team in seen.teams:  # not why some are held back: that names trainers, and other teams
        own.insert(0, team_line(team, replace(seen.teams[team], reason=None)))
    return replace(
        found,
        anchored=None,
        notes=own,
        spool_bytes=None,
        stream_entries=None,
        parked=None,
        equivocations=None,
    )


def _queues(settings: Settings, limit: float) -> Iterator[Queue]:
    """By the marks of this host's workers, and what those of others tell Redis; ``beat``, which
    tells nothing there, is left out where others have all."""
    told: dict[str, float] = {}
    with suppress(ProvenanceError), closing(reading.open_board(settings)) as board:
        alive = [(labels[1:], at) for labels, at in board.counts().items() if labels[0] == "alive"]
        told = {queue[0]: max(0.0, time.time() - at) for queue, at in alive if len(queue) == 1}
    for age in ages(settings):
        known = [s for s in (age.age_s, told.get(age.queue)) if s is not None]
        if known or not told:
            newest = min(known, default=None)
            yield Queue(age.queue, newest, newest is None or newest > limit)


def _seen(settings: Settings, team: str | None = None) -> Overview:
    return overview(settings, _wanted(settings, team=team))


def _wanted(settings: Settings, run_id: UUID | None = None, team: str | None = None) -> Wanted:
    now, lost_after_s = time.time(), settings.lost_after_s
    return Wanted(now, lost_after_s, among=team, run=run_id, size=1)


def _ancestors(
    tx: LedgerTx, settings: Settings, item: ListedRun, team: str | None
) -> Iterator[ListedRun]:
    seen = {item.row.run}
    while len(seen) <= MAX_ANCESTORS and item.parent is not None:
        found: list[ListedRun] = []
        with suppress(ValueError):
            found, _ = list_runs(tx, _wanted(settings, UUID(item.parent), team))
        if not found or found[0].row.run in seen:
            return
        item = found[0]
        seen.add(item.row.run)
        yield item


def _run(item: ListedRun) -> Run:
    row = item.row
    return Run(
        run_id=row.run,
        name=item.name,
        team=item.team,
        group=item.group,
        tags=list(item.tags),
        state=item.ending.state,
        ending=item.ending.line,
        sealed=row.state == "sealed",
        begun=item.begun,
        seen=item.seen,
        epoch=item.epoch,
        step=item.step,
        numbers=dict(item.numbers),
        parent=item.parent,
        incomplete=row.incomplete,
    )


def _seals(tx: LedgerTx, settings: Settings, entries: Sequence[LedgerEntry]) -> list[Seal]:
    """Entries with the anchor of each network that covers them: one query for each network."""
    networks = dict.fromkeys((*settings.blockchain.networks, *tx.anchored_networks()))
    asked = [entry.index for entry in entries if entry.anchor]
    covered = [tx.coverings(network, asked) for network in networks]
    return [
        Seal(
            index=entry.index,
            run_id=entry.run,
            seal=seal_label(entry),
            root=entry.root.hex(),
            sealed_at=entry.created_at,
            anchors=[_anchor(*of[entry.index]) for of in covered if entry.index in of],
        )
        for entry in entries
    ]


def _named(tx: LedgerTx, seals: Sequence[Seal], team: str) -> list[Seal]:
    """Those of a team as they are, others without run and seal."""
    teams = tx.teams_of({seal.run_id for seal in seals if seal.run_id is not None})
    return [
        seal if seal.run_id and teams.get(seal.run_id) == team
        else replace(seal, run_id=None, seal=None)
        for seal in seals
    ]  # fmt: skip


def _anchor(row: AnchorRow, transaction_id: str | None) -> Anchor:
    return Anchor(
        network=row.network,
        state=row.state.value,
        size=row.size,
        transaction_id=transaction_id,
        height=row.height,
        depth=row.depth,
        block_time=row.block_time,
        paid=row.paid,
        reason=row.reason,
        attempts=row.attempts,
        updated_at=row.updated_at,
    )


def _head(row: HeadRow) -> Head:
    return Head(row.size, row.root.hex(), row.note, row.created_at)


def _network(tx: LedgerTx, name: str, standing: NetworkStanding, now: float) -> NetworkView:
    stands, remembered = network_document(name, standing, now), tx.network(name)
    size = tx.reach(name, (AnchorState.CONFIRMED, AnchorState.FINAL))
    newest = tx.covering(name, size - 1) if size else None
    waiting = tx.anchors(name, ACTIVE - {AnchorState.CONFIRMED} | {AnchorState.FAILED})
    shown = [*filter(None, [newest]), *reversed(waiting[-MAX_WAITING:])]
    keys = ("paused", "problem", "final", "waiting", "waiting_s", "eta_s", "cost", "cost_per_run")
    return NetworkView(
        network=name,
        counts=stands["anchors"],
        **{key: stands[key] for key in (*keys, "unit")},
        identity=dict(remembered.identity) if remembered else {},
        anchors=[_anchor(row, anchor_fact(tx, row).transaction_id) for row in shown],
    )
