"""Several hashing workers on one PostgreSQL: events of 4 KiB of many runs, from a Redis stream.

The server keeps its durable settings. Beside the rate stands how long a worker waits for locks,
from samples of ``pg_stat_activity``: the machine's cores bound the rate, contention shows there.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier

import psycopg

from provenance.ledger.ingest import drain
from provenance.ledger.seal import SealPolicy
from provenance.stores.redis_streams import RedisStreams
from provenance.stores.sql import SqlStore
from tests.benchmarks.bench_ingest import event
from tests.benchmarks.measure import private_redis
from tests.benchmarks.table import Row, missing, row
from tests.benchmarks.worlds import FIRST
from tests.support.nodes.fixtures_postgres import running
from tests.support.runs import run_of
from tests.support.verify_world import KEY, SIGNER, World, before, ending

WORKERS = (1, 2, 4)
BATCH, SAMPLE_S = 20, 0.01
_WAITING = """
SELECT count(*) FILTER (WHERE wait_event_type = 'Lock'), count(*)
FROM pg_stat_activity WHERE application_name = 'ml-provenance'
"""


def batches(runs: int, events: int) -> list[bytes]:
    """Runs that all go on at once, each from its beginning to its end."""
    world, parts = World(names=()), []
    story = ending([*before(), *(event(number) for number in range(events))])
    for at in range(0, len(story), BATCH):
        for number in range(runs):
            run = run_of(FIRST + number, KEY)
            parts.append(world.batch(story[at : at + BATCH], run=run, first=at))
    world.store.close()
    return parts


def work(redis_url: str, database_url: str, number: int, start: Barrier) -> None:
    """A hashing worker: drains until the stream is empty."""
    store, transport = SqlStore.open(database_url), RedisStreams(redis_url)
    policy = SealPolicy(("local",), SIGNER)
    with store.snapshot() as tx:
        tx.runs()
    start.wait()
    while transport.backlog():
        drain(transport, store, policy, f"worker-{number}", time.time)
        time.sleep(0.01)  # what is left is at another worker
    store.close()


def drained(server: str, redis_url: str, workers: int, parts: list[bytes]) -> tuple[float, float]:
    """Seconds until the stream is empty, and of them those that a worker waits for locks."""
    name = f"bench_{workers}_{time.monotonic_ns()}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        url = f"{server}/{name}"
        SqlStore.open(url).close()
        transport = RedisStreams(redis_url)
        for at in range(0, len(parts), 50):
            transport.append(parts[at : at + 50])
        context = multiprocessing.get_context("spawn")
        start = context.Barrier(workers + 1)
        processes = [
            context.Process(target=work, args=(redis_url, url, number, start))
            for number in range(workers)
        ]
        for process in processes:
            process.start()
        start.wait()
        begun, waiting, seen = time.perf_counter(), 0, 0
        while transport.backlog():
            held_up, there = admin.execute(_WAITING).fetchone() or (0, 0)
            waiting, seen = waiting + held_up, seen + there
            time.sleep(SAMPLE_S)
        taken = time.perf_counter() - begun
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * workers
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    return taken, waiting / max(seen, 1)


def rows(quick: bool) -> Iterator[Row]:
    """The rows of the table."""
    runs, events, repeat = (16, 50, 1) if quick else (48, 100, 5)
    label = "ingest on PostgreSQL, 4 KiB events of many runs"
    with private_redis() as redis_url:
        if redis_url is None:
            yield missing(label, "make devnet")
            return
        try:
            with running("log_lock_waits=on") as server:
                parts = batches(runs, events)
                turns = [
                    {n: drained(server.url, redis_url, n, parts) for n in WORKERS}
                    for _ in range(repeat)
                ]
        except FileNotFoundError as error:
            yield missing(label, str(error))
            return
    total = runs * (len(ending(before())) + events)
    alone = [total / turn[1][0] for turn in turns]
    for workers in WORKERS:
        name = f"{label}, {workers} worker{'s' * (workers > 1)}"
        rates = [total / turn[workers][0] for turn in turns]
        yield row(name, "events/s", rates, None if workers == 1 else ("1 worker", alone))
        share = [100 * turn[workers][1] for turn in turns]
        yield row(f"{name}, time waiting for locks", "%", share)
