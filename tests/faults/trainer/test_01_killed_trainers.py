"""Scenario 1: SIGKILL trainers mid-epoch; what their emits promised is in the database."""

from __future__ import annotations

import time

from tests.faults.support.harness import World, rounds, scenario, seeded
from tests.faults.support.processes import Trainer, until

AT_ONCE = 4


def test_every_event_whose_emit_returned_is_in_the_database(world: World) -> None:
    kills = rounds(8, 100)
    with scenario(1, "SIGKILL trainers mid-epoch") as tally:
        rng = seeded()
        world.start("shipper", "hashing", "beat", "confirm")
        running: list[Trainer] = []
        dead: list[Trainer] = []
        while len(dead) < kills:
            while len(running) < min(AT_ONCE, kills - len(dead)):
                steps = rng.randint(1, 50)
                running.append(
                    world.trainer(epochs=10**6, metrics_per_epoch=steps, seed=rng.getrandbits(32))
                )
            trainer = running.pop(0)
            assert until(trainer.promised, 30, 0.005), "the trainer never began"
            time.sleep(rng.uniform(0, 0.05))
            trainer.kill()
            tally.kills += 1
            dead.append(trainer)
        for trainer in dead:
            world.wait_home(trainer.run, max(trainer.promised()) + 1, 120)
        report = world.judge(tally, dead)
        assert report["checked"]
        assert tally.kills == kills
        assert tally.events > kills
