"""Scenario 2: hashing workers are killed while events pour in."""

from __future__ import annotations

import time
from contextlib import nullcontext

from tests.faults.support.harness import World, rounds, scenario, seeded
from tests.faults.support.processes import Trainer, until


def entries_in_hand(world: World) -> int:
    """Batches that were given to a worker and not acknowledged."""
    with world.redis.client() as client:
        streams = client.scan_iter("prov:events:*")
        return sum(int(g["pending"]) for s in streams for g in client.xinfo_groups(s))


def test_killed_hashing_workers_lose_nothing(world: World) -> None:
    """Two workers race for the stream; either dies at any moment, whole or in part."""
    with scenario(2, "SIGKILL hashing workers under load") as tally:
        rng = seeded()
        kills, busy = rounds(4, 60), 0
        world.start("shipper", "hashing", "confirm", "beat")
        world.second("hashing", "hashing2")
        world.wait_ready("hashing", "hashing2")
        trainers: list[Trainer] = []
        while tally.kills < kills:
            running = [t for t in trainers if t.process.poll() is None]
            if not running:
                number = len(trainers)
                trainers.append(
                    world.trainer(epochs=20, metrics_per_epoch=20, pace_s=0.003, seed=number)
                )
                continue
            name = rng.choice(["hashing", "hashing2"])
            part = rng.choice(["all", "parent", "child"])
            time.sleep(rng.uniform(0.0, 0.3))
            # Half of them die with batches read and nothing committed: the lock is ours.
            with world.store().transaction() if rng.random() < 0.5 else nullcontext():
                until(lambda: entries_in_hand(world), rng.uniform(0.2, 1.0), 0.001)
                busy += bool(entries_in_hand(world))
                world.kill(name, part=part)
            tally.kills += 1
            if part != "child":
                restart(world, name)
        for trainer in trainers:
            trainer.finish()
            world.wait_sealed(trainer.run)
            assert world.roots(trainer.run) == world.undisturbed_roots(trainer.run)
        tally.note = f"{busy} kills with batches in hand"
        world.judge(tally, trainers)


def restart(world: World, name: str) -> None:
    if name == "hashing":
        world.start(name)
    else:
        world.second("hashing", name)
