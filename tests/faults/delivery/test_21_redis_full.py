"""Scenario 21: Redis has no memory left and refuses every write."""

from __future__ import annotations

import time
from contextlib import suppress

from provenance.bootstrap import sending
from provenance.errors import TransportUnavailable
from provenance.ledger.ingest import drain
from tests.faults.support.harness import World, rounds, scenario, seeded
from tests.faults.support.processes import Trainer, until


def full(world: World, is_full: bool) -> None:
    """``maxmemory`` below what is in use: OOM to every command that could need memory."""
    with world.redis.client() as client:
        client.config_set("maxmemory", 1 if is_full else 0)


def test_workers_live_or_restart_and_the_backlog_drains(world: World) -> None:
    with scenario(21, "Redis out of memory") as tally:
        rng = seeded()
        outages, died = rounds(3, 50), 0
        trainers: list[Trainer] = []
        world.start()
        world.wait_ready("hashing", "confirm", "anchor-local")
        for _ in range(outages):
            if not trainers or trainers[-1].process.poll() is not None:
                trainers.append(
                    world.trainer(epochs=8, metrics_per_epoch=20, pace_s=0.01, seed=len(trainers))
                )
            time.sleep(rng.uniform(0.0, 0.5))
            full(world, True)
            tally.kills += 1
            time.sleep(rng.uniform(0.2, 1.3))
            died += len(world.mend())
            full(world, False)
            time.sleep(rng.uniform(0.0, 0.5))
        for trainer in trainers:
            trainer.finish()
        for trainer in trainers:
            died += len(world.mend())
            world.wait_final(trainer.run, 60)
            assert world.roots(trainer.run) == world.undisturbed_roots(trainer.run)
        tally.note = f"{died} processes restarted"
        world.judge(tally, trainers)


def test_a_backlog_is_worked_off_while_redis_stays_full(world: World) -> None:
    """Deleting is what makes room: a worker commits and deletes, whatever else is refused."""
    with scenario(21, "Redis out of memory") as tally:
        trainer = world.trainer(epochs=3, metrics_per_epoch=30)
        trainer.finish()
        transport = sending.open_transport(world.settings)
        assert not transport.read("one", 1)  # there is a consumer group, as ever after the first
        world.start("shipper")
        try:
            assert until(lambda: transport.backlog() > 0, 20)
            full(world, True)
            tally.kills += 1
            with suppress(TransportUnavailable):  # the counts are refused; the work is done
                drain(
                    transport,
                    world.store(),
                    sending.seal_policy(world.settings),
                    "one",
                    time.time,
                )
            assert transport.backlog() == 0, "the entries still fill the server"
        finally:
            full(world, False)
            transport.close()
        assert world.events(trainer.run) == len(trainer.promised())
        world.start()
        world.wait_final(trainer.run)
        world.judge(tally, [trainer])
