"""Events of 4 KiB from a Redis stream into committed, sealed-when-due state in an SQLite file.

In turns with a Celery worker that gets a task per event and commits each, and a run that has had
many events with one that has had few.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from celery.contrib.testing.worker import start_worker

from provenance.formats.record import Kind
from provenance.ledger.ingest import drain
from provenance.stores.redis_streams import RedisStreams
from tests.benchmarks.measure import private_redis, seconds
from tests.benchmarks.table import Row, missing, row
from tests.benchmarks.worlds import ingest_run, local_world
from tests.support.verify_world import Fields, World, before

EVENT_BYTES, BATCH, ROUND = 4096, 100, 500
"""Bytes of an event, events in a batch, events in a round."""
EACH = "each record is decoded, its form checked, hashed and indexed: 0.1 ms, and 40x leaves 0.04"


def event(epoch: int) -> Fields:
    """Metrics with a text of 4 KiB."""
    return (Kind.METRICS, epoch, {"metrics": {"loss": 1.0, "note": "x" * EVENT_BYTES}})


class Ours:
    """A run in a deployment that has had ``events`` events."""

    def __init__(self, folder: Path, url: str, events: int) -> None:
        self.world: World = local_world(folder)[0]
        self.transport = RedisStreams(url, key_prefix=f"bench-{events}:")
        self.streams = f"bench-{events}:events:*"
        head = before()
        self.next = len(head) + events
        ingest_run(self.world, head + [event(n) for n in range(events)])

    def append(self) -> None:
        """A round of events, into the stream."""
        for _ in range(ROUND // BATCH):
            events = [event(n) for n in range(self.next, self.next + BATCH)]
            self.transport.append([self.world.batch(events, first=self.next)])
            self.next += BATCH

    def round(self) -> float:
        """Seconds an event takes from the stream to the database."""
        self.append()
        new = 0

        def drained() -> None:
            nonlocal new
            done = drain(
                self.transport, self.world.store, self.world.policy, "bench", lambda: self.world.now
            )
            new = done.new

        taken = seconds(drained) / ROUND
        assert new == ROUND, new
        return taken


class TaskPerEvent:
    """Celery with one task per event, which inserts a row and commits."""

    def __init__(self, folder: Path, url: str) -> None:
        app = Celery("bench", broker=url, set_as_current=False)
        app.conf.update(task_ignore_result=True, worker_hijack_root_logger=False)
        self.app, self.done, file = app, [0.0], folder / "peer.db"
        with closing(sqlite3.connect(file)) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("CREATE TABLE events (number INTEGER PRIMARY KEY, data TEXT)")
        opened: list[sqlite3.Connection] = []

        @app.task(name="store", queue="bench")  # type: ignore[untyped-decorator]  # no types
        def store(number: int, fields: Any) -> None:
            if not opened:
                opened.append(sqlite3.connect(file, check_same_thread=False))
                opened[0].execute("PRAGMA synchronous=FULL")
            opened[0].execute("INSERT INTO events VALUES (?, ?)", (number, str(fields)))
            opened[0].commit()
            self.done.append(time.perf_counter())

        self.store, self.numbers = store, count()

    def round(self) -> float:
        """Seconds an event takes, between the first task's end and the last one's."""
        for _ in range(ROUND):
            number = next(self.numbers)
            self.store.apply_async(args=[number, event(number)[2]])
        self.done = []
        options: Any = {"pool": "solo", "perform_ping_check": False, "queues": ["bench"]}
        with start_worker(self.app, loglevel="ERROR", shutdown_timeout=30.0, **options):
            until = time.monotonic() + 60.0
            while len(self.done) < ROUND and time.monotonic() < until:
                time.sleep(0.05)
        assert len(self.done) == ROUND, len(self.done)
        return (self.done[-1] - self.done[0]) / (ROUND - 1)


def rows(quick: bool) -> Iterator[Row]:
    """The rows of the table."""
    few, many, repeat = (500, 2_000, 2) if quick else (1_000, 20_000, 7)
    label = "ingest, 4 KiB events"
    with private_redis() as url, tempfile.TemporaryDirectory() as name:
        if url is None:
            yield missing(label, "make devnet")
            return
        folder = Path(name)
        peer = TaskPerEvent(folder, url)
        early, late = Ours(folder / "early", url, few), Ours(folder / "late", url, many)
        early.append()
        with redis.Redis.from_url(url) as client:
            used = [client.memory_usage(key, samples=0) for key in client.scan_iter(early.streams)]
        drain(
            early.transport, early.world.store, early.world.policy, "bench", lambda: early.world.now
        )
        taken = [(early.round(), late.round(), peer.round()) for _ in range(repeat)]
    first, last, tasks = ([one * 1e6 for one in part] for part in zip(*taken, strict=True))
    rates = ([1e6 / one for one in part] for part in (first, tasks))
    ours = next(rates)
    beside = ("Celery, a task per event", next(rates))
    yield row(label, "events/s", ours, beside, "ratio >= 40", EACH)
    peer_name = f"run of {few:,} events"
    yield row(f"{label}, run of {many:,} events", "us", last, (peer_name, first), "ratio <= 1.5")
    yield row(
        "Redis bytes per 4 KiB event in flight",
        "bytes",
        [max(int(str(size)) for size in used) / ROUND],
    )
