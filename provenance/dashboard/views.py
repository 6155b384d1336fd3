"""What the pages and the API say, read in one snapshot of the database each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Final
from uuid import UUID

from provenance.anchor.outbox import ACTIVE
from provenance.app import bundle
from provenance.app.health import ages, limit_s
from provenance.app.run_list import ListedRun, Wanted, list_runs, listed
from provenance.app.verify import own_trust
from provenance.bootstrap import reading
from provenance.capture.spool import pending_bytes
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
from provenance.errors import BadSignatureError, FormatError, UnavailableError, UnknownRunError
from provenance.evidence.run_evidence import seal_label
from provenance.ledger.seal import waits_for
from provenance.ports.store import LedgerTx
from provenance.ports.values import (
    AnchorRow,
    AnchorState,
    HeadRow,
    LedgerEntry,
    RunRow,
    SignedVersion,
)
from provenance.settings import Settings
from provenance.verify.identity import check_identity

MAX_ANCESTORS: Final = 20


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


def run(settings: Settings, run_id: UUID) -> RunDetail:
    """A run. UnknownRunError where there is none."""
    trust, wanted = own_trust(settings, reading.ledger_key(settings)), _now(settings)
    with snapshot(settings) as tx:
        row = _row(tx, run_id)
        item = listed(tx, row, wanted)
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
        return RunDetail(
            run=_run(item),
            public_key=row.public_key.hex(),
            identity=identity,
            identity_problem=problem,
            trainer=trainer,
            pinned=[
                *(f"ledger key {pin.key.vkey}: {pin.by}" for pin in trust.ledger_keys),
                *(f"{pin.network} {pin.id or ''}".strip() + f": {pin.by}" for pin in trust.chains),
                *(f"trainer {name}" for name in trust.trainers),
                *(f"witness {key.vkey}" for key in trust.witnesses),
            ],
            created_at=row.created_at,
            sealed_at=row.sealed_at,
            waits_for=waits_for(tx, run_id),
            seals=_seals(tx, settings, shown),
            seals_total=len(entries),
            ancestors=[_run(listed(tx, row, wanted)) for row in _ancestors(tx, item)],
            bundles=[str(noted["cid"]) for noted in bundle.noted(settings, run_id)],
        )


def ledger(settings: Settings, end: int | None, limit: int) -> Ledger:
    """The entries below ``end`` (all where None), the newest ``limit`` of them."""
    key = reading.ledger_key(settings)
    vkey = None if key is None else key.vkey
    try:
        with snapshot(settings) as tx:
            size = tx.ledger_size()
            stop = size if end is None else min(end, size)
            first = max(0, stop - limit)
            entries = tx.entries(first=first, end=stop) if stop else ()
            heads = [head for head in tx.heads(first + 1, limit) if head.size <= stop]
            newest = tx.head()
            return Ledger(
                origin=settings.origin,
                key=vkey,
                size=size,
                newest=None if newest is None else _head(newest),
                entries=_seals(tx, settings, entries)[::-1],
                heads=[_head(head) for head in reversed(heads)],
                next=first or None,
            )
    except UnknownRunError:
        return Ledger(settings.origin, vkey, 0, None, [], [], None)


def heads(settings: Settings, first: int, limit: int) -> list[Head]:
    """Signed heads by size, from ``first`` on."""
    with snapshot(settings) as tx:
        return [_head(head) for head in tx.heads(first, limit)]


def networks(settings: Settings) -> list[NetworkView]:
    """The networks of the configuration, and others that have anchors."""
    chain = settings.blockchain
    configured = chain.networks if chain.enabled else ()
    try:
        with snapshot(settings) as tx:
            names = dict.fromkeys((*configured, *tx.anchored_networks()))
            return [_network(tx, name, name in configured) for name in names]
    except UnknownRunError:
        return [NetworkView(name, True, {}, None, {}, None, []) for name in configured]


def health(settings: Settings) -> Health:
    """How old the newest task of each queue is, and what waits."""
    limit = limit_s(settings)
    queues = [Queue(age.queue, age.age_s, age.stale(limit)) for age in ages(settings)]
    entries, problem = None, "no redis_url is configured" if settings.redis_url is None else None
    if settings.redis_url is not None:
        try:
            entries = reading.stream_backlog(settings)
        except UnavailableError as error:
            problem = str(error)
    healthy = problem is None and not any(queue.stale for queue in queues)
    spool = pending_bytes(settings.base_dir / "spool")
    return Health(healthy, queues, limit, spool, entries, problem)


def _now(settings: Settings) -> Wanted:
    return Wanted(now=time.time(), lost_after_s=settings.lost_after_s)


def _row(tx: LedgerTx, run_id: UUID) -> RunRow:
    row = tx.run(run_id)
    if row is None:
        raise UnknownRunError(f"run {run_id}: the database has no such run")
    return row


def _ancestors(tx: LedgerTx, item: ListedRun) -> Iterator[RunRow]:
    seen = {item.row.run}
    wanted = Wanted(now=0.0)
    while len(seen) <= MAX_ANCESTORS and item.parent is not None:
        row = None
        with suppress(ValueError):
            row = tx.run(UUID(item.parent))
        if row is None or row.run in seen:
            return
        seen.add(row.run)
        yield row
        item = listed(tx, row, wanted)


def _run(item: ListedRun) -> Run:
    row = item.row
    return Run(
        run_id=row.run,
        name=item.name,
        group=item.group,
        tags=list(item.tags),
        state=item.ending.state,
        ending=item.ending.line,
        sealed=row.state == "sealed",
        begun=item.begun,
        seen=item.seen,
        epoch=item.epoch,
        step=item.step,
        numbers=item.numbers,
        parent=item.parent,
        incomplete=row.incomplete,
    )


def _seals(tx: LedgerTx, settings: Settings, entries: Sequence[LedgerEntry]) -> list[Seal]:
    """Entries with the anchor of each network that covers them; each anchor is read once."""
    networks = dict.fromkeys((*settings.blockchain.networks, *tx.anchored_networks()))
    known: dict[int, Anchor] = {}

    def anchors(entry: LedgerEntry) -> Iterator[Anchor]:
        for network in networks if entry.anchor else ():
            row = tx.covering(network, entry.index)
            if row is not None:
                yield known.setdefault(row.id, known.get(row.id) or _anchor(tx, row))

    return [
        Seal(
            index=entry.index,
            run_id=entry.run,
            seal=seal_label(entry),
            root=entry.root.hex(),
            sealed_at=entry.created_at,
            anchors=list(anchors(entry)),
        )
        for entry in entries
    ]


def _anchor(tx: LedgerTx, row: AnchorRow) -> Anchor:
    versions = tx.versions(row.id)
    chosen = next((each for each in versions if each.id == row.version_id), None)
    counts = chosen or (versions[-1] if versions else None)
    version = counts.version if counts else None
    return Anchor(
        network=row.network,
        state=row.state.value,
        size=row.size,
        transaction_id=version.transaction_id if version else None,
        height=row.height,
        depth=row.depth,
        block_time=row.block_time,
        price=_price(version) if version else None,
        reason=row.reason,
        attempts=row.attempts,
        updated_at=row.updated_at,
    )


def _price(version: SignedVersion) -> str | None:
    if not version.fee:
        return None
    if version.network == "ethereum":
        return f"{version.fee / 1e9:.4g} gwei per gas"
    return f"{version.fee} sat per vB"


def _head(row: HeadRow) -> Head:
    return Head(row.size, row.root.hex(), row.note, row.created_at)


def _network(tx: LedgerTx, name: str, configured: bool) -> NetworkView:
    remembered = tx.network(name)
    in_block = (AnchorState.CONFIRMED, AnchorState.FINAL)
    size = tx.reach(name, in_block)
    newest = tx.covering(name, size - 1) if size else None
    waiting = tx.anchors(name, ACTIVE | {AnchorState.FAILED})[-MAX_WAITING:]
    return NetworkView(
        network=name,
        configured=configured,
        counts={state.value: count for state, count in tx.anchor_counts(name).items()},
        paused=remembered.paused if remembered else None,
        identity=dict(remembered.identity) if remembered else {},
        newest=None if newest is None else _anchor(tx, newest),
        waiting=[_anchor(tx, row) for row in reversed(waiting)],
    )
