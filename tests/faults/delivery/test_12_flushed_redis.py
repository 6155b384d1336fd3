"""Scenario 12: the whole of Redis is emptied while everything runs."""

from __future__ import annotations

import time

import pytest

from tests.faults.support.harness import World, rounds, scenario, seeded
from tests.faults.support.processes import Trainer


@pytest.mark.parametrize("how", ["flushed", "killed"])
def test_replay_rebuilds_identical_roots(world: World, how: str) -> None:
    """``killed``: a Redis that keeps nothing on disk, and comes back empty."""
    with scenario(12, "FLUSHALL mid-run") as tally:
        rng = seeded()
        losses = rounds(3, 40)
        trainers: list[Trainer] = []
        world.start()
        while tally.kills < losses:
            if not trainers or trainers[-1].process.poll() is not None:
                number = len(trainers)
                trainers.append(
                    world.trainer(epochs=10, metrics_per_epoch=20, pace_s=0.01, seed=number)
                )
            time.sleep(rng.uniform(0.1, 1.0))
            if how == "flushed":
                world.redis.flushall()
            else:
                world.redis.kill()
                time.sleep(rng.uniform(0.0, 0.3))
                world.redis.start()
            tally.kills += 1
            world.mend()
        for trainer in trainers:
            trainer.finish()
            world.wait_final(trainer.run, 90)
            assert world.roots(trainer.run) == world.undisturbed_roots(trainer.run)
        world.judge(tally, trainers)
