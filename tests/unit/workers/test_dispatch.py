"""Hints may be lost, and a broker that refuses one is nobody's error."""

from __future__ import annotations

from typing import Any

import pytest
from kombu.exceptions import OperationalError
from redis.exceptions import OutOfMemoryError

from provenance.ports.values import AnchorState
from tests.support.anchor_world import LEASE_S, World
from workers.dispatch import ring


class Task:
    name = "workers.example"

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.sent = error, []  # type: ignore[var-annotated]  # filled by the test

    def apply_async(self, arguments: tuple[str, ...], **options: Any) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append((arguments, options))


def test_a_hint_is_sent_once_and_expires() -> None:
    task = Task()
    assert ring(task, "anchor.local", "local")
    sent = {"queue": "anchor.local", "expires": 30, "retry": False, "shadow": "example local"}
    assert task.sent == [(("local",), sent)]


@pytest.mark.parametrize("error", [OperationalError("away"), OutOfMemoryError(), OSError(104, "")])
def test_a_broker_that_refuses_is_no_error(error: Exception) -> None:
    assert not ring(Task(error), "hashing")


def test_a_mistake_is_one() -> None:
    with pytest.raises(TypeError):
        ring(Task(TypeError()), "hashing")


def test_rows_that_a_clock_left_far_ahead_are_rung_for() -> None:
    from provenance.anchor.delivery import stranded_networks

    world = World()
    row = world.head()
    assert row is not None

    def stranded(now: float) -> frozenset[str]:
        with world.store.snapshot() as tx:
            assert tx.due_networks([AnchorState.DUE], now) == frozenset()
            return stranded_networks(tx, now, LEASE_S)

    assert stranded(world.now - 300) == frozenset()  # a backoff may be as long as that
    assert stranded(world.now - 3600) == {world.name}
    world.now -= 3600
    world.publish()  # claims it, though it is not due
    assert world.row().state is AnchorState.SENT
