"""Three hashing workers on one PostgreSQL: they share the runs, and one is killed midway."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from provenance.formats.record import record_digest
from provenance.stores.redis_streams import RedisStreams
from tests.conftest import missing
from tests.faults.support.harness import World
from tests.faults.support.processes import until
from tests.support.ledger_values import checkpoints_upto, digested, run_tree
from tests.support.nodes.fixtures_postgres import Server, running
from tests.support.runs import Producer, some_run

RUNS, EPOCHS, BATCH, NAMES = 30, 12, 4, ("hashing", "hashing2", "hashing3")


def history() -> Producer:
    """A run with a checkpoint every fourth epoch."""
    producer = Producer(run=some_run())
    producer.begin()
    for epoch in range(1, EPOCHS + 1):
        producer.epoch(epoch)
        if not epoch % 4:
            producer.seal("checkpoint", epoch)
    producer.finish()
    return producer


def deployment(folder: Path, server: Server) -> World:
    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as admin:
        admin.execute("CREATE DATABASE fleet")
    url = f"{server.url}/fleet"
    return World(folder, more={"database_url": url}, env={"PROVENANCE_DATABASE_URL": url})


@pytest.mark.nodes
@pytest.mark.timeout(300)
def test_three_hashing_workers_of_which_one_is_killed(tmp_path: Path) -> None:
    try:
        with (
            running("fsync=off", "deadlock_timeout=50ms") as server,
            deployment(tmp_path / "world", server) as world,
        ):
            producers = [history() for _ in range(RUNS)]
            bring_home(world, producers)
            judge(world, producers)
            said = server.log.read_text(errors="replace")
            assert "deadlock" not in said
            killed = "unexpected EOF on client connection"  # of the worker, in the middle of rows
            errors = [line for line in said.splitlines() if "ERROR" in line and killed not in line]
            assert errors == [], said
    except FileNotFoundError as error:
        missing(str(error))


def bring_home(world: World, producers: list[Producer]) -> None:
    """Ship all runs at once; kill a worker that has some of them in its hands."""
    transport = RedisStreams(world.redis_url)
    world.start("hashing", "confirm", "beat", "anchor-local")
    for name in NAMES[1:]:
        world.second("hashing", name)
    world.wait_ready(*NAMES)
    parts = [[d.payload for d in producer.deliveries(BATCH)] for producer in producers]
    for batches in zip(*parts, strict=True):
        transport.append(batches)
    with world.redis.client() as client:

        def busy() -> str | None:
            """The worker with entries in its hands."""
            pids = {pid: name for name in NAMES for pid in world.pids(name)}
            for stream in client.scan_iter("prov:events:*"):
                grouped = client.xinfo_groups(stream)
                for consumer in client.xinfo_consumers(stream, "hashing") if grouped else ():
                    pid = int(consumer["name"].rpartition(b":")[2])
                    if consumer["pending"] and pid in pids:
                        return pids[pid]
            return None

        name = until(busy, 60, 0.001)
    assert name, "no worker took anything"
    world.kill(name)
    for producer in producers:
        world.wait_final(producer.run, 120)
    assert transport.backlog() == 0


def judge(world: World, producers: list[Producer]) -> None:
    """Every event once, the roots that all records give, by several workers."""
    for producer in producers:
        with world.store().snapshot() as tx:
            entries, records = tx.entries(producer.run), digested(tx, producer.run)
            (row,) = tx.producers(producer.run)
            run = tx.run(producer.run)
        assert run is not None
        assert (run.state, run.incomplete) == ("sealed", None)
        digests = [item.digest for item in records]
        assert sorted(digests) == sorted(map(record_digest, producer.records()))
        assert row.contiguous == row.highest == len(producer.events)
        assert [entry.epoch for entry in entries] == [None, 4, 8, 12, None]
        for entry in entries:
            told = checkpoints_upto(entries, entry.index)
            assert run_tree(records, entry.phase, told, dict(entry.coverage)).root == entry.root
    with world.store().snapshot() as tx:
        assert [e.index for e in tx.entries()] == list(range(5 * RUNS))
        assert not tx.parked()
    assert world.fsck()["findings"] == []
    logs = [world.log(name).read_text(errors="replace") for name in NAMES]
    assert sum("hashing.drained" in log for log in logs) > 1, "one worker did it all"
