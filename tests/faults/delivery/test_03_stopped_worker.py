"""Scenario 3: a worker is stopped, gets something, and is killed with it in its hands."""

from __future__ import annotations

import signal
import time

import pytest

from tests.faults.support.bells import Bell, stop_in_its_pop
from tests.faults.support.harness import World, rounds, scenario, seeded
from tests.faults.support.processes import until

SWEEP_S, LEASE_S = 1.0, 5.0
SLACK_S = 10.0
"""For a worker to start on a busy machine."""


@pytest.mark.parametrize("held", ["message", "batches"])
def test_stopped_and_killed_workers_are_repaired_in_time(world: World, held: str) -> None:
    """``message``: the hint is lost. ``batches``: they were given to a worker that is dead."""
    with scenario(3, "SIGSTOP a worker, send, SIGKILL it") as tally:
        rng, bell = seeded(), Bell(world)
        world.start("hashing", "beat", "confirm")
        for _ in range(rounds(1, 25)):
            world.start("hashing")
            world.log("hashing").write_text("")
            assert until(lambda: len(world.pids("hashing")) > 1, 30)
            trainer = world.trainer(epochs=rng.randint(1, 3), metrics_per_epoch=rng.randint(1, 40))
            trainer.finish()
            if held == "message":
                stop_in_its_pop(world)
                bell.ship()
                world.kill("hashing")
            else:
                hold_batches(world, bell)
            tally.kills += 1
            start = time.monotonic()
            world.start("hashing")
            world.wait_home(trainer.run, len(trainer.promised()), SWEEP_S + LEASE_S + SLACK_S)
            tally.note = f"repaired in {time.monotonic() - start:.1f} s at last"
            world.wait_sealed(trainer.run)
            assert world.roots(trainer.run) == world.undisturbed_roots(trainer.run)
            tally.events += len(trainer.promised())
            tally.lost += len(world.missing(trainer))
        world.judge(tally)


def hold_batches(world: World, bell: Bell) -> None:
    """The worker has read the stream and waits for the database when it is killed."""
    with world.store().transaction():
        bell.ship()
        with world.redis.client() as client:

            def given() -> int:
                streams = client.scan_iter("prov:events:*")
                return sum(int(g["pending"]) for s in streams for g in client.xinfo_groups(s))

            assert until(given, 20, 0.02), "nobody read the batches"
        world.kill("hashing", signal.SIGSTOP)
        world.kill("hashing")
