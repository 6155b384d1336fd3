"""Scenario 24: SIGTERM while a task is under way."""

from __future__ import annotations

import fcntl
import time

import psutil

from provenance.app.up import GRACE_S
from provenance.ports.values import AnchorState
from tests.faults.support.harness import World, rounds, scenario, seeded
from tests.faults.support.processes import Trainer, until

TITLE = "SIGTERM mid-task"


def terminate(world: World, name: str) -> float:
    """SIGTERM as a supervisor sends it; seconds until the whole service is gone by itself."""
    pids = world.pids(name)
    process = world.processes[name]
    start = time.monotonic()
    process.terminate()
    process.wait(GRACE_S)
    taken = time.monotonic() - start
    assert until(lambda: not any(psutil.pid_exists(pid) for pid in pids), 2), (
        "a child was left behind"
    )
    return taken


def sending(world: World) -> bool:
    """A row whose bytes are stored and not sent yet."""
    with world.store().snapshot() as tx:
        return bool(tx.anchors(states=[AnchorState.SIGNED]))


def test_a_sender_that_is_told_to_stop_anchors_nothing_again(world: World) -> None:
    """It waits for the anchor file's lock in the middle of sending when the signal comes."""
    with scenario(24, TITLE) as tally:
        rng, slowest = seeded(), 0.0
        world.start()
        trainers: list[Trainer] = []
        for number in range(rounds(2, 25)):
            world.start("anchor-local")
            world.log("anchor-local").write_text("")
            trainer = world.trainer(epochs=1, metrics_per_epoch=3, seed=number)
            trainers.append(trainer)
            path = world.settings.base_dir / "anchors.jsonl"
            with path.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_SH)  # others may read it, nobody append
                trainer.finish()
                assert until(lambda: sending(world), 30, 0.02), "nothing is being sent"
                process = world.processes["anchor-local"]
                process.terminate()
                tally.kills += 1
                time.sleep(rng.uniform(0.0, 1.0))
                assert process.poll() is None, "it left a task in the middle"
            start = time.monotonic()
            process.wait(GRACE_S)
            slowest = max(slowest, time.monotonic() - start)
            world.start("anchor-local")
            world.wait_final(trainer.run)
        tally.note = f"gone {slowest:.1f} s after the lock was free, at most"
        world.judge(tally, trainers)


def test_any_service_under_load_leaves_within_the_grace(world: World) -> None:
    with scenario(24, TITLE) as tally:
        rng, slowest = seeded(), 0.0
        world.start()
        world.wait_ready("hashing", "anchor-local", "confirm")
        trainers: list[Trainer] = []
        names = [name for name in world.processes if name != "flower"]
        for number in range(rounds(4, 50)):
            if not trainers or trainers[-1].process.poll() is not None:
                trainers.append(
                    world.trainer(epochs=4, metrics_per_epoch=20, pace_s=0.01, seed=number)
                )
            time.sleep(rng.uniform(0.0, 0.5))
            name = rng.choice(names)
            slowest = max(slowest, terminate(world, name))
            tally.kills += 1
            world.log(name).write_text("")
            world.start(name)
            if name in ("hashing", "anchor-local", "confirm"):
                world.wait_ready(name)
        for trainer in trainers:
            trainer.finish()
            world.wait_final(trainer.run)
            assert world.roots(trainer.run) == world.undisturbed_roots(trainer.run)
        tally.note = f"gone within {slowest:.1f} s"
        world.judge(tally, trainers)
