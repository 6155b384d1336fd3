"""What Prometheus is told: the database's own numbers, without reading runs and records."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from sqlalchemy import event

from provenance.formats.record import Kind
from provenance.ledger.ingest import ingest
from provenance.observe import counts
from provenance.observe.collector import Figures
from provenance.ports.values import AnchorState
from provenance.settings import Settings, load
from provenance.stores.redis_board import RedisBoard
from provenance.stores.sql import SqlStore
from provenance.testing.memory_transport import MemoryTransport
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


def test_what_cannot_be_reached_is_told_and_the_rest_is_there(
    settings: Settings, store: SqlStore
) -> None:
    away = replace(settings, redis_url="redis://127.0.0.1:1/0")
    assert value(away, "reachable", part="redis") == 0
    assert value(away, "reachable", part="database") == 1
    assert value(away, "ledger_entries") == 0
    broken = replace(settings, database_url=f"sqlite:///{settings.base_dir}")
    assert value(broken, "reachable", part="database") == 0


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
    age = value(here, "stream_oldest_age_seconds", shard="3")
    assert age == pytest.approx(30, abs=20)
    board._redis.delete("prov:counts", "prov:shippers", "prov:events:3")
    board.close()
