"""Scenarios 5 and 6: Redis down, or hung, for the whole run: the training does not notice."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from tests.faults.support.by_hand import ingest
from tests.faults.support.harness import LONG, World, rounds, scenario
from tests.faults.support.processes import until

STEPS = 3000 if LONG else 600
# A call that waits for Redis waits 0.5 s at least; a busy machine is good for some milliseconds.
FLOOR_S = 0.05


@pytest.fixture
def world(make_world: Callable[..., World]) -> Iterator[World]:
    """Also ends the shipper that a tracker leaves in the background."""
    made = make_world(sweep_interval=0.5)
    yield made
    end_background_shipper(made)


def end_background_shipper(world: World) -> None:
    """It is nobody's child: found by its lock, ended when the lock is free."""
    lock = world.base / "spool" / "shipper.lock"
    with suppress(OSError, ValueError):
        os.kill(int(lock.read_text()), signal.SIGKILL)
    with suppress(FileNotFoundError), lock.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def train(world: World) -> tuple[UUID, dict[str, Any]]:
    name = f"train{len(world.processes)}"
    argv = [
        sys.executable, "-m", "tests.faults.support.outage",
        str(world.base), str(world.config), str(STEPS),
    ]  # fmt: skip
    code = world.spawn(name, argv).wait(120)
    lines = world.log(name).read_text().splitlines()
    assert code == 0, lines[-5:]
    run = next(line for line in lines if line.startswith("run ")).split()[1]
    return UUID(run), json.loads(lines[-1])


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def compare(calm: dict[str, Any], outage: dict[str, Any]) -> str:
    """Emit p99, step median and whole time of the outage against those without one."""
    for what, measure in (("calls", p99), ("steps", p99), ("steps", statistics.median)):
        before, during = measure(calm[what]), measure(outage[what])
        assert during < max(5 * before, FLOOR_S), f"{what}: {before:.6f} s, now {during:.6f} s"
    before, during = (statistics.median(t["calls"]) for t in (calm, outage))
    assert during < max(4 * before, 0.0003), f"median call: {before:.6f} s, now {during:.6f} s"
    assert outage["seconds"] < 2 * calm["seconds"] + 3
    assert max(outage["calls"]) < 1.0
    micro = [round(p99(t["calls"]) * 1e6) for t in (calm, outage)]
    milli = [round(statistics.median(t["steps"]) * 1e3, 2) for t in (calm, outage)]
    return f"emit p99 {micro[0]} us, {micro[1]} us in the outage; step {milli[0]} ms, {milli[1]} ms"


@contextmanager
def down(world: World) -> Iterator[None]:
    world.redis.kill()
    yield
    world.redis.start()


@contextmanager
def hung(world: World) -> Iterator[None]:
    world.redis.suspend()
    yield
    world.redis.resume()


CASES = [
    pytest.param(5, "Redis down for the whole run", down, id="down"),
    pytest.param(6, "Redis hung (SIGSTOP) for the whole run", hung, id="hung"),
]


@pytest.mark.parametrize(("number", "title", "outage"), CASES)
def test_training_goes_on_unchanged_and_all_is_delivered_afterwards(
    number: int, title: str, outage: Callable[[World], Any], world: World
) -> None:
    with scenario(number, title) as tally:
        _, calm = train(world)
        for _ in range(rounds(1, 2)):
            with outage(world):
                run, measured = train(world)
            tally.kills += 1
            tally.note = compare(calm, measured)
            assert measured["events"]["dropped"] == measured["events"]["errors"] == 0
            written = measured["events"]["written"]
            tally.events += written
            # The background shipper is still there, waiting for Redis: it does the shipping.
            until(partial(_arrived, world, run, written), 30)
            tally.lost += written - world.events(run)
            world.wait_sealed(run, 5)
        end_background_shipper(world)
        world.judge(tally)


@pytest.mark.skipif(not LONG, reason="long form")
@pytest.mark.parametrize(("number", "title", "outage"), CASES)
def test_workers_that_sat_through_the_outage_take_up_their_work(
    number: int, title: str, outage: Callable[[World], Any], world: World
) -> None:
    """The whole fleet runs before, during and after."""
    with scenario(number, f"{title}, workers running") as tally:
        world.start()
        world.wait_ready("hashing", "anchor-local", "confirm")
        with outage(world):
            run, measured = train(world)
        tally.kills += 1
        world.wait_home(run, measured["events"]["written"], 120)
        world.wait_final(run, 120)
        tally.events = measured["events"]["written"]
        tally.lost = tally.events - world.events(run)
        world.judge(tally)


def _arrived(world: World, run: UUID, count: int) -> bool:
    ingest(world.settings)
    return world.events(run) >= count
