"""What Prometheus is told: the database's own numbers, without reading runs and records."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from sqlalchemy import event

from provenance.formats.record import Kind
from provenance.ledger.ingest import ingest
from provenance.observe import counts, readiness
from provenance.observe.collector import Figures
from provenance.ports.values import AnchorState, NetworkRow
from provenance.settings import Settings, load
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.redis_board import RedisBoard
from provenance.stores.sql import SqlStore
from tests.support.paths import ROOT
from tests.support.runs import POLICY, Producer, some_run


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(None, tmp_path)


@pytest.fixture
def store(settings: Settings) -> Iterator[SqlStore]:
    opened = SqlStore.open(settings.database_url)
    yield opened
    opened.close()


def scrape(settings: Settings) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Figures(settings))
    return registry


def value(settings: Settings, name: str, **labels: str) -> float | None:
    return scrape(settings).get_sample_value(f"provenance_{name}", labels)


def ingested(store: SqlStore, *producers: Producer) -> None:
    given = [delivery for producer in producers for delivery in producer.deliveries()]
    ingest(MemoryTransport(), store, POLICY, given, time.time)


def run(*gaps: int, finished: bool = True) -> Producer:
    producer = Producer(some_run())
    producer.begin()
    for dropped in gaps:
        producer.add(Kind.GAP, dropped=dropped, reason="the disk is full")
    if finished:
        producer.finish()
    return producer


@pytest.mark.slow
def test_what_runs_lost_and_where_they_stand(settings: Settings, store: SqlStore) -> None:
    ingested(store, run(), run(3, 4), run(finished=False))
    assert value(settings, "runs", state="sealed") == 2
    assert value(settings, "runs", state="open") == 1
    assert value(settings, "dropped_events_total") == 7
    assert value(settings, "runs_with_gaps") == 1
    assert value(settings, "ledger_entries") == 5
    assert value(settings, "parked_batches") == 0
    assert value(settings, "reports_due") == 2
    assert value(settings, "seal_delay_seconds", quantile="1") is not None


@pytest.mark.slow
def test_the_oldest_root_that_no_final_anchor_covers(settings: Settings, store: SqlStore) -> None:
    ingested(store, run())
    name = {"network": "local"}
    assert value(settings, "anchors", **name, state="due") == 2
    age = value(settings, "unanchored_root_age_seconds", **name)
    assert age is not None
    assert 0 <= age < 60
    with store.transaction() as tx:
        newest = tx.anchors("local")[-1]
        old = time.time() - 500
        row = dataclasses.replace(
            newest, state=AnchorState.SENT, attempts=4, updated_at=old, paid=21_000.0
        )
        tx.save_anchor(row)
    assert value(settings, "anchor_age_seconds", **name, state="sent") == pytest.approx(500, abs=60)
    assert value(settings, "anchor_attempts", **name) == 4
    assert value(settings, "fees", **name, unit="unit") == 21_000
    with store.transaction() as tx:
        tx.save_anchor(dataclasses.replace(row, state=AnchorState.FINAL))
    assert value(settings, "unanchored_root_age_seconds", **name) == 0


def test_a_commit_has_its_age(settings: Settings, store: SqlStore) -> None:
    assert value(settings, "commit_age_seconds") is None
    with store.transaction() as tx:
        tx.note_commit("sweep", time.time() - 90)
    assert value(settings, "commit_age_seconds") == pytest.approx(90, abs=30)


@pytest.mark.slow
def test_what_cannot_be_reached_is_told_and_the_rest_is_there(
    settings: Settings, store: SqlStore
) -> None:
    away = replace(settings, redis_url="redis://127.0.0.1:1/0")
    assert value(away, "reachable", part="redis") == 0
    assert value(away, "reachable", part="database") == 1
    assert value(away, "ledger_entries") == 0
    broken = replace(settings, database_url=f"sqlite:///{settings.base_dir}")
    assert value(broken, "reachable", part="database") == 0


def test_a_database_that_is_gone_or_takes_nothing_is_not_reachable(
    settings: Settings, store: SqlStore
) -> None:
    registry = scrape(settings)
    part = {"part": "database"}
    assert registry.get_sample_value("provenance_reachable", part) == 1
    with store.exclusive() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON commits "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    assert registry.get_sample_value("provenance_reachable", part) == 0
    assert registry.get_sample_value("provenance_ledger_entries") == 0, "it is still read"
    (settings.base_dir / "ledger.db").unlink()
    assert registry.get_sample_value("provenance_reachable", part) == 0
    assert registry.get_sample_value("provenance_ledger_entries") is None


def test_a_network_that_does_not_get_on_is_no_ready_deployment(
    settings: Settings, store: SqlStore
) -> None:
    ingested(store, run())
    assert readiness.of_networks(settings) == []
    with store.transaction() as tx:
        tx.save_network(NetworkRow("local", {}, "another chain answers", time.time()))
    assert readiness.of_networks(settings) == [], "not before it has taken long"
    with store.exclusive() as connection:
        connection.exec_driver_sql("UPDATE ledger_entries SET created_at = created_at - 500")
    (line,) = readiness.of_networks(settings)
    assert re.fullmatch(r"local: the oldest root waits for 5\d\d s: another chain answers", line), (
        line
    )


def test_an_alert_fires_where_its_series_is_gone() -> None:
    (group,) = yaml.safe_load((ROOT / "deploy/observability/alerts.yaml").read_text())["groups"]
    rules = {rule["alert"]: rule["expr"] for rule in group["rules"]}
    for alert, series in (
        ("ProvenanceNoCommits", "provenance_commit_age_seconds"),
        ("ProvenanceQueueStale", "provenance_queue_age_seconds"),
        ("ProvenanceWatchDown", 'up{job="provenance"}'),
    ):
        assert f"or absent({series})" in rules[alert]


def test_a_root_that_waits_for_persons_is_an_alert_of_its_own() -> None:
    (group,) = yaml.safe_load((ROOT / "deploy/observability/alerts.yaml").read_text())["groups"]
    rules = {rule["alert"]: rule["expr"] for rule in group["rules"]}
    held = re.escape('provenance_anchors{state="held"} > 0')
    left_out = rf"\(.* > 21600\) unless ignoring \(state\) {held}"
    assert re.fullmatch(left_out, rules["ProvenanceRootUnanchored"])


@pytest.mark.nodes
def test_a_redis_that_refuses_writes_is_not_reachable(settings: Settings, redis_url: str) -> None:
    here, board = replace(settings, redis_url=redis_url), RedisBoard(redis_url)
    assert value(here, "reachable", part="redis") == 1
    board._redis.config_set("maxmemory", 1)
    try:
        assert value(here, "reachable", part="redis") == 0
        assert value(here, "stream_entries", shard="3") is not None, "it is still read"
    finally:
        board._redis.config_set("maxmemory", 0)
        board.close()


@pytest.mark.usefixtures("store")
def test_a_scrape_opens_the_database_once_to_commit_and_keeps_the_one_it_reads(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures, opened = Figures(settings), list[bool]()
    list(figures.collect())
    real = SqlStore.open

    def note(url: str, **options: Any) -> SqlStore:
        opened.append(options.get("read_only", False))
        return real(url, **options)

    monkeypatch.setattr(SqlStore, "open", note)
    list(figures.collect())
    assert opened == [False]


def test_no_query_reads_all_runs_or_records(settings: Settings, store: SqlStore) -> None:
    """Each is an indexed aggregate at most: SQLite's plan scans no table."""
    ingested(store, *(run(1) for _ in range(3)))
    asked: list[tuple[str, Any]] = []
    figures = Figures(settings)
    list(figures.collect())
    reader = figures._store
    assert isinstance(reader, SqlStore)
    assert reader._engine is not None

    def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        asked.append((statement, parameters))

    event.listen(reader._engine, "before_cursor_execute", note)
    list(figures.collect())
    plans = []
    assert store._engine is not None
    with store._engine.connect() as connection:
        for statement, parameters in asked:
            if statement.startswith("SELECT"):
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                plans += [row[-1] for row in rows]
    assert len(plans) > 10
    scans = [plan for plan in plans if re.match(r"SCAN \w+", plan) and "COVERING" not in plan]
    assert [
        plan
        for plan in scans
        if not re.match(r"SCAN (parked|networks|commits|anon_1|heads USING INDEX)", plan)
    ] == []


@pytest.mark.nodes
def test_shippers_and_workers_tell_through_redis(settings: Settings, redis_url: str) -> None:
    board = RedisBoard(redis_url)
    board._redis.delete("prov:counts", "prov:shippers")
    told = {"bytes": 5.0, "runs": 1.0, "age_s": 7.5, "unusable": 0.0, "corruptions": 0.0}
    board.report("trainer-1:/spool", told)
    board._redis.hset("prov:shippers", "stranger", b"{")
    board._redis.hset("prov:counts", "[[", "1")
    counts.add("tasks", "hashing", "drain", "done")
    counts.add("tasks", "hashing", "drain", "done")
    counts.publish(lambda: board)
    counts.add("rpc_sum", "ethereum", "observe", number=0.3)
    counts.add("rpc_bucket", "ethereum", "observe", "0.5")
    counts.publish(lambda: board)
    here = replace(settings, redis_url=redis_url)
    host = {"host": "trainer-1", "spool": "/spool"}
    assert value(here, "spool_bytes", **host) == 5
    assert value(here, "spool_oldest_age_seconds", **host) == 7.5
    done = {"queue": "hashing", "task": "drain", "outcome": "done"}
    assert value(here, "tasks_total", **done) == 2
    rpc = {"network": "ethereum", "call": "observe"}
    assert value(here, "rpc_seconds_bucket", **rpc, le="0.25") == 0
    assert value(here, "rpc_seconds_bucket", **rpc, le="1.0") == 1
    assert value(here, "rpc_seconds_count", **rpc) == 1
    board.append([])
    board._redis.xadd("prov:events:3", {"b": b"x"}, id=f"{int((time.time() - 30) * 1000)}-0")
    assert value(here, "stream_entries", shard="3") == 1
    old = {**told, "at": time.time() - 400}
    board._redis.hset("prov:shippers", "trainer-1:/spool", json.dumps(old))
    assert value(here, "spool_bytes", **host) is None, "of a stale report nothing is told as of now"
    assert value(here, "shipper_report_age_seconds", **host) == pytest.approx(400, abs=60)
    board.report("trainer-1:/spool", {})
    assert value(here, "shipper_report_age_seconds", **host) is None, "it left in order"
    age = value(here, "stream_oldest_age_seconds", shard="3")
    assert age == pytest.approx(30, abs=20)
    board._redis.delete("prov:counts", "prov:shippers", "prov:events:3")
    board.close()
