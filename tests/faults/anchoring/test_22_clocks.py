"""Scenario 22: two beats, and a clock that jumps by an hour either way."""

from __future__ import annotations

import shelve
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.schedules import schedule

from provenance.anchor.delivery import stranded_networks
from provenance.ports.values import AnchorState, Draft, SignedVersion
from tests.faults.support.harness import World, rounds, scenario, seeded
from tests.faults.support.processes import until
from tests.support.anchor_world import LEASE_S
from tests.support.anchor_world import World as Stage
from tests.support.nodes.memory_chain import MemoryNetwork
from workers.app import Tick
from workers.schedule import PUBLISHED

HOUR = 3600.0


def rings(world: World) -> bool:
    """Whether a further sweep message is queued; nobody may be there to take it."""
    with world.redis.client() as client:
        before = client.llen("confirm")
        return bool(until(lambda: client.llen("confirm") > before, 20))


def test_two_beats_double_nothing(world: World) -> None:
    with scenario(22, "Two beats, and a clock jump of an hour either way") as tally:
        rng = seeded()
        world.start()
        world.second("beat", "beat2")
        trainers = []
        for number in range(rounds(2, 20)):
            trainer = world.trainer(epochs=rng.randint(1, 4), pace_s=0.005, seed=number)
            trainers.append(trainer)
            if rng.random() < 0.5:
                beat = rng.choice(["beat", "beat2"])
                world.kill(beat)
                tally.kills += 1
                world.second("beat", beat) if beat == "beat2" else world.start(beat)
            trainer.finish()
        for trainer in trainers:
            world.wait_final(trainer.run)
            assert world.roots(trainer.run) == world.undisturbed_roots(trainer.run)
        world.stop("confirm")
        for beat, other in (("beat", "beat2"), ("beat2", "beat")):
            world.kill(beat, signal.SIGCONT)
            world.kill(other, signal.SIGSTOP)
            assert rings(world), f"{beat} rings nobody"
        world.judge(tally, trainers)


class JumpingNetwork(MemoryNetwork):
    """Calls ``jump`` at a chosen moment of a pass."""

    jump: Callable[[str], None] = staticmethod(lambda moment: None)

    def draft(self, payload: bytes, replaces: SignedVersion | None = None) -> Draft:
        self.jump("draft")
        return super().draft(payload, replaces)

    def broadcast(self, version: SignedVersion) -> None:
        self.jump("broadcast")
        super().broadcast(version)
        self.jump("sent")


def settle(stage: Stage) -> None:
    """Sweeps, as the beat makes them, until nothing is under way; bounded in stage time."""
    deadline = stage.now + HOUR / 2
    while stage.now < deadline:
        with stage.store.snapshot() as tx:
            stranded = stranded_networks(tx, stage.now, LEASE_S)
            due = tx.due_networks(PUBLISHED, stage.now) | stranded
            looks = tx.due_networks(set(AnchorState) - set(PUBLISHED), stage.now) | stranded
        if due:
            stage.publish()
        stage.chain.mine(time=stage.now)
        if looks:
            stage.confirm()
        if all(row.state in (AnchorState.FINAL, AnchorState.REPLACED) for row in stage.rows()):
            return
        stage.now += 5.0
    raise AssertionError(f"stalled: {stage.rows()}")


def test_a_jump_at_any_moment_doubles_and_stalls_nothing() -> None:
    """A second publisher comes after the jump while the first is still at work, too."""
    with scenario(22, "Two beats, and a clock jump of an hour either way") as tally:
        rng = seeded()
        for _ in range(rounds(25, 300)):
            stage = Stage()
            node = JumpingNetwork(stage.chain, name=stage.name)
            moment = rng.choice(["draft", "broadcast", "sent"])
            by, rival = rng.choice([-HOUR, HOUR]), rng.random() < 0.5
            jumped: list[str] = []

            def jump(
                at: str,
                stage: Stage = stage,
                wanted: str = moment,
                by: float = by,
                rival: bool = rival,
                jumped: list[str] = jumped,
            ) -> None:
                if at == wanted and not jumped:
                    jumped.append(at)
                    stage.now += by
                    if rival:
                        stage.publish()

            node.jump = jump
            heads = rng.randint(1, 3)
            for _ in range(heads):
                stage.head()
                stage.publish(node)
                if rng.random() < 0.3:
                    stage.now += rng.choice([-HOUR, HOUR])
            assert jumped == [moment]
            stage.now -= rng.choice([0.0, by])  # and it may be set right again
            settle(stage)
            roots = stage.mined_roots()
            tally.events += heads
            tally.kills += 1
            tally.doubled += len(roots) - len(set(roots))
            assert stage.row().root in roots
            stage.store.close()


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_beat_goes_on_when_the_clock_is_set(hours: int) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    jumped = now + timedelta(hours=hours)
    tick = Tick(5.0, nowfun=lambda: jumped)
    assert tick.is_due(now).is_due
    assert tick.is_due(now).next == 5.0
    assert not tick.is_due(jumped).is_due
    if hours < 0:  # what Celery's own does, and why there is another
        assert schedule(5.0, nowfun=lambda: jumped).is_due(now).next > 3600


def test_the_beat_survives_its_schedule_file(world: World) -> None:
    """A beat that starts again after the clock was set back reads a last run in the future."""
    world.start("beat")
    assert rings(world)
    world.stop("beat")
    with shelve.open(str(world.base / "run" / "beat.db"), writeback=True) as book:
        entry: Any = book["entries"]["sweep"]
        entry.last_run_at += timedelta(hours=1)
        book["entries"]["sweep"] = entry
    world.start("beat")
    assert rings(world), "the beat waits for the clock to catch up"
