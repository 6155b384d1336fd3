"""Scenario 18: SIGKILL at the system calls of shipper, ingest and publisher."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from provenance.capture.emitter import Emitter
from provenance.capture.keys import keep_run_keys, new_run_keys
from provenance.formats.record import Kind
from provenance.settings import Settings
from tests.faults.support import by_hand, fail_points
from tests.faults.support.harness import Tally, World, rounds, scenario, seeded
from tests.support.paths import ROOT

EVENTS = 25
LEASE_S = 0.2
STEPS = ("ship", "ingest", "ship", "anchor", "ship")
"""The second ship deletes what is committed, the third clears the run's folder."""


def work(settings: Settings, step: str) -> Callable[[], Any]:
    if step == "anchor":
        return partial(by_hand.anchor, settings, lease_s=LEASE_S)
    function: Callable[[Settings], Any] = getattr(by_hand, step)
    return partial(function, settings)


def whole_run(world: World, tally: Tally) -> UUID:
    """A finished run in several segments; the number of its events goes into the tally."""
    keys, spool = new_run_keys(), world.base / "spool"
    run = keys.run
    keep_run_keys(spool / str(run), keys)
    emitter = Emitter(spool, run, segment_bytes=1500)
    emitter.emit(
        Kind.CONFIG,
        None,
        {"public_key": keys.public_key.hex(), "hash_algorithm": "blake3", "world_size": 1},
    )
    emitter.emit(Kind.SEAL, None, {"phase": "before", "epoch": None, "anchor": True})
    for number in range(EVENTS):
        emitter.emit(Kind.METRICS, number, {"metrics": {"loss": 1 / (number + 1)}})
    emitter.emit(Kind.SEAL, None, {"phase": "after", "epoch": None, "anchor": True})
    assert emitter.close()
    tally.events += emitter.counts()["written"]
    return run


def settle(world: World, runs: list[UUID], tally: Tally) -> None:
    """No more kills: everything comes home, and the checker finds nothing.

    An entry whose workers were killed three times is parked, for an operator to look at; its
    shipper, which hears nothing of it, ships the events once more.
    """
    by_hand.bring_home(world.settings)
    by_hand.ship_what_stalled(world.settings)
    by_hand.bring_home(world.settings)
    with world.store().transaction() as tx:
        killed = [row.id for row in tx.parked() if row.reason.startswith("delivered ")]
        tx.forget_parked(ids=killed)
    for _ in range(20):
        time.sleep(LEASE_S)
        by_hand.anchor(world.settings, lease_s=LEASE_S)
        with world.store().snapshot() as tx:
            if all(row.state.value in ("final", "replaced") for row in tx.anchors("local")):
                break
    for run in runs:
        tally.lost += EVENTS + 4 - world.events(run)
        world.wait_sealed(run, 1)
        world.wait_final(run, 1)
    tally.lost += sum(1 for _ in by_hand.spooled(world.base / "spool"))
    world.judge(tally)


def test_killed_at_any_call_that_has_an_effect(world: World) -> None:
    kills = rounds(40, 300)
    with scenario(18, "SIGKILL at system calls (fail points)") as tally:
        rng = seeded()
        runs: list[UUID] = []
        span: list[int] = []
        for _ in range(2):  # the first time it imports and caches, which is none of the work
            runs.append(whole_run(world, tally))
            span = [fail_points.points(work(world.settings, step)) for step in STEPS]
        assert all(5 < number < 1000 for number in span), span
        while tally.kills < kills:
            runs.append(whole_run(world, tally))
            for step, most in zip(STEPS, span, strict=True):
                number = rng.randint(1, most)
                tally.kills += fail_points.killed_at_call(work(world.settings, step), number)
        settle(world, runs, tally)


@pytest.mark.skipif(not fail_points.strace_works(), reason="strace cannot trace here")
def test_killed_at_real_system_calls(world: World) -> None:
    kills = rounds(2, 40)
    with scenario(18, "SIGKILL at system calls (strace)") as tally:
        rng = seeded()
        runs: list[UUID] = []
        while tally.kills < kills:
            runs.append(whole_run(world, tally))
            for step in STEPS[:4]:
                tally.kills += traced(world, step, rng)
                if tally.kills >= kills:
                    break
        settle(world, runs, tally)


def traced(world: World, step: str, rng: random.Random) -> bool:
    """Run a step in a process of its own; True where it was killed in its work."""
    syscall = rng.choice(fail_points.SYSCALLS[step])
    most = 20 if syscall == "pwrite64" else 4
    argv = [
        sys.executable, "-m", "tests.faults.support.fail_points",
        step, str(world.config), str(world.base),
    ]  # fmt: skip
    done = subprocess.run(
        fail_points.strace(argv, syscall, rng.randint(1, most)),
        env=world.env, cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0
