"""The figures of a deployment for Prometheus, read from its database and Redis at each scrape.

They are the truth of the moment, the same whatever process answers: the database's own counts, the
length of the streams, and what shippers and workers left on Redis's board
(:mod:`provenance.stores.redis_board`). Nothing here asks a network: a wallet's balance is what the
anchoring worker was told when it worked last. No query reads runs or records; docs/observability.md
says what each figure means.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from provenance.bootstrap import reading
from provenance.errors import ProvenanceError, StoreUnavailable
from provenance.evidence.run_summary import seconds_of
from provenance.ledger.teams import standings
from provenance.observe import readiness
from provenance.observe.readiness import SWEEP
from provenance.ports.listing import UNITS
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import AnchorState, Work
from provenance.settings import Settings
from provenance.stores.redis_board import RPC_BUCKETS_S, RedisBoard

SEALS: Final = 100
"""The newest, of which the delays are told."""
MAX_SHIPPERS: Final = 2000
STALE_S: Final = 300.0
"""Age of a shipper's report from which its figures are not those of now."""
_PREFIX: Final = "provenance_"
Labels = tuple[str, ...]
Numbers = dict[Labels, float]


class Figures(Collector):
    """Collects a deployment's figures. What cannot be reached is told as such, and its own figures
    are left out."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: LedgerStore | None = None

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked when a registry takes it."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families."""
        reached: Numbers = {}
        parts = {"database": self._of_database, "redis": self._of_redis}
        if self._settings.redis_url is None:
            del parts["redis"]
        for part, ask in parts.items():
            try:
                yield from ask()
                reached[part,] = 1
            except ProvenanceError:
                reached[part,] = 0
        yield _gauge(
            "reachable", "1 where it answered this scrape and takes writes", ("part",), reached
        )

    # --- the database ---------------------------------------------------------------------

    def _of_database(self) -> Iterator[Metric]:
        path = reading.sqlite_path(self._settings.database_url)
        try:
            if path is not None and not path.exists():  # also where it is still open here
                raise StoreUnavailable(f"database {path}: there is none")
            self._store = self._store or reading.open_store(self._settings)
            assert self._store is not None
            with self._store.snapshot() as tx:
                families = [*_of_runs(tx), *self._of_teams(tx), *self._of_anchors(tx)]
        except ProvenanceError:
            if self._store is not None:
                self._store.close()
            self._store = None
            raise
        yield from families
        readiness.require_database(self._settings, self._store)

    def _of_teams(self, tx: LedgerTx) -> Iterator[Metric]:
        """Of those that the deployment names: a trainer may name as many as it likes."""
        found = standings(tx, self._settings.teams, time.time())
        used: Numbers = {}
        quotas: Numbers = {}
        held: Numbers = {("",): 0.0}
        for name, team in found.items():
            own = (name if name in self._settings.teams else "",)
            held[own] = held.get(own, 0.0) + team.held
            if not own[0]:
                continue
            used |= {(*own, "runs"): team.use.runs, (*own, "bytes"): team.use.nbytes}
            limits = {"runs": team.quota.runs_per_day, "bytes": team.quota.bytes_per_day}
            quotas |= {(*own, of): float(n) for of, n in limits.items() if n is not None}
        yield _gauge("team_used", "what came of a team today", ("team", "of"), used)
        yield _gauge("team_quota", "of what it may send a day", ("team", "of"), quotas)
        yield _gauge("team_held_runs", "runs that are held back", ("team",), held)

    def _of_anchors(self, tx: LedgerTx) -> Iterator[Metric]:
        now, chain = time.time(), self._settings.blockchain
        counts: Numbers = {}
        ages: Numbers = {}
        attempts: Numbers = {}
        depths: Numbers = {}
        unanchored: Numbers = {}
        costs: Numbers = {}
        paused: Numbers = {}
        for name in dict.fromkeys((*chain.networks, *tx.anchored_networks())):
            of_state = tx.anchor_counts(name)
            counts |= {(name, state.value): of_state.get(state, 0) for state in AnchorState}
            oldest = tx.oldest_anchors(name)
            ages |= {(name, state.value): now - oldest[state][0] for state in oldest}
            attempts[name,] = max((each[1] for each in oldest.values()), default=0)
            if AnchorState.CONFIRMED in oldest:
                depths[name,] = oldest[AnchorState.CONFIRMED][2]
            tally = tx.tally(name)
            since = tally.waiting_since
            if name in chain.networks:
                unanchored[name,] = 0.0 if since is None else now - since
            if AnchorState.HELD in oldest and since is not None:  # rows replace one another
                ages[name, AnchorState.HELD.value] = now - since
            if tally.paid is not None:
                costs[name, UNITS.get(name, "unit")] = tally.paid
            known = tx.network(name)
            paused[name,] = float(known is not None and known.paused is not None)
        by_state, by_network = ("network", "state"), ("network",)
        yield _gauge("anchors", "anchors", by_state, counts)
        yield _gauge(
            "anchor_age_seconds",
            "since the oldest anchor got there, or began to wait",
            by_state,
            ages,
        )
        yield _gauge("anchor_attempts", "most failures in a row", by_network, attempts)
        yield _gauge("anchor_confirmations", "least depth of one not final", by_network, depths)
        text = "since the oldest root that no final anchor covers was made"
        yield _gauge("unanchored_root_age_seconds", text, by_network, unanchored)
        yield _gauge("network_paused", "1 where nothing new is signed", by_network, paused)
        yield _gauge("fees", "paid for anchors in blocks", ("network", "unit"), costs)

    # --- Redis ----------------------------------------------------------------------------

    def _of_redis(self) -> Iterator[Metric]:
        with closing(reading.open_board(self._settings)) as board:
            yield from [*_of_streams(board), *_of_shippers(board), *_of_workers(board.counts())]
            readiness.require_redis(board)


def _of_runs(tx: LedgerTx) -> Iterator[Metric]:
    now, head, states = time.time(), tx.head(), tx.open_and_sealed()
    runs: Numbers = {(state,): states.get(state, 0) for state in ("open", "sealed")}
    yield _gauge("runs", "runs", ("state",), runs)
    lossy, events = tx.dropped()
    yield _gauge("runs_with_gaps", "runs that lost events", value=lossy)
    yield _counter("dropped_events", "events that trainers lost", value=events)
    yield _gauge("parked_batches", "what ingest would not take", value=tx.parked_count())
    yield _gauge("reports_due", "reports not written yet", value=tx.work_count(Work.REPORT))
    yield _gauge("archives_due", "runs not archived yet", value=tx.work_count(Work.ARCHIVE))
    yield _gauge("ledger_entries", "entries of the ledger", value=tx.ledger_size())
    if head is not None:
        yield _gauge("head_age_seconds", "since the newest head", value=now - head.created_at)
    if (committed := tx.commit_time(SWEEP)) is not None:
        yield _gauge("commit_age_seconds", "since a sweep committed", value=now - committed)
    delays = list[float]()
    for made, asked in tx.newest_seals(SEALS):
        with suppress(ValueError):  # a damaged row
            delays.append(max(0.0, made - seconds_of(asked)))
    if delays:
        of: Numbers = {("0.5",): statistics.median(delays), ("1",): max(delays)}
        text = f"from a trainer's mark to its seal, of the newest {SEALS}"
        yield _gauge("seal_delay_seconds", text, ("quantile",), of)


def _of_streams(board: RedisBoard) -> Iterator[Metric]:
    waiting = {(str(shard),): found for shard, found in enumerate(board.waiting())}
    lengths: Numbers = {shard: found[0] for shard, found in waiting.items()}
    yield _gauge("stream_entries", "batches that no worker committed", ("shard",), lengths)
    ages: Numbers = {shard: found[1] or 0.0 for shard, found in waiting.items()}
    yield _gauge("stream_oldest_age_seconds", "since the oldest came", ("shard",), ages)


_REPORTED: Final = {
    "bytes": ("spool_bytes", "of segments that the database has not committed"),
    "age_s": ("spool_oldest_age_seconds", "since the oldest event that is not shipped"),
    "runs": ("spool_runs", "runs in the spool"),
    "unusable": ("spool_unusable_runs", "runs that cannot be shipped"),
    "corruptions": ("spool_corruptions", "damaged places since the shipper started"),
}


def _of_shippers(board: RedisBoard) -> Iterator[Metric]:
    newest = sorted(board.reports().items(), key=lambda item: -_number(item[1].get("at")))
    reports: dict[Labels, dict[str, Any]] = {
        _shipper(name): report for name, report in newest[:MAX_SHIPPERS]
    }
    labels, now = ("host", "spool"), time.time()
    ages = {own: max(0.0, now - _number(report["at"])) for own, report in reports.items()}
    for key, (name, text) in _REPORTED.items():
        numbers: Numbers = {
            own: _number(report.get(key)) for own, report in reports.items() if ages[own] <= STALE_S
        }
        yield _gauge(name, text, labels, numbers)
    yield _gauge("shipper_report_age_seconds", "since a shipper's report", labels, ages)


def _shipper(name: str) -> Labels:
    host, _, spool = name.partition(":")
    return host, spool


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _of_workers(counts: Mapping[Labels, float]) -> Iterator[Metric]:
    """What workers counted, by name: of a stranger's labels too many or too few are left out."""
    now = time.time()

    def of(name: str, *labels: str) -> Numbers:
        wanted = len(labels) + 1
        return {k[1:]: n for k, n in counts.items() if k[0] == name and len(k) == wanted}

    def counter(name: str, text: str, *labels: str) -> Metric:
        return _counter(name, text, labels, of(name, *labels))

    yield counter("tasks", "tasks that ended", "queue", "task", "outcome")
    yield counter("events", "events that came from the stream", "outcome")
    yield counter("anchor_outcomes", "what became of anchors, pass by pass", "network", "outcome")
    yield counter("rpc_errors", "calls of a network that failed", "network", "call", "error")
    ages = {queue: max(0.0, now - at) for queue, at in of("alive", "queue").items()}
    yield _gauge("queue_age_seconds", "since a task of the queue ended", ("queue",), ages)
    balances: Numbers = {
        (n, UNITS.get(n, "unit")): b for (n,), b in of("balance", "network").items()
    }
    text = "of the wallet, as its node said when an anchor was last worked on"
    yield _gauge("wallet_balance", text, ("network", "unit"), balances)
    took = HistogramMetricFamily(
        f"{_PREFIX}rpc_seconds", "what a network took to answer", labels=("network", "call")
    )
    sums, buckets = of("rpc_sum", "network", "call"), of("rpc_bucket", "network", "call", "le")
    for own, total in sums.items():
        running, rows = 0.0, list[tuple[str, float]]()
        for top in (*map(str, RPC_BUCKETS_S), "+Inf"):
            running += buckets.get((*own, top), 0.0)
            rows.append((top, running))
        took.add_metric(list(own), rows, total)
    yield took


def _gauge(
    name: str, text: str, labels: Labels = (), numbers: Numbers | None = None, *, value: float = 0
) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, text, labels=labels)
    return _filled(family, {(): value} if numbers is None else numbers)


def _counter(
    name: str, text: str, labels: Labels = (), numbers: Numbers | None = None, *, value: float = 0
) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=labels)
    return _filled(family, {(): value} if numbers is None else numbers)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, numbers: Numbers) -> Metric:
    for labels, number in numbers.items():
        family.add_metric(labels, number)
    return family
