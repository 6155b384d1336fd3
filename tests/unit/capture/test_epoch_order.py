"""EpochOrder: what a set of all epochs would tell, without keeping one."""

from __future__ import annotations

import random

import pytest

from provenance.capture.epoch_order import BEHIND, MAX_STRETCHES, TWICE, EpochOrder


def naive(epochs: list[int]) -> tuple[list[str | None], int]:
    """The set and its maximum."""
    seen: set[int] = set()
    told: list[str | None] = []
    for epoch in epochs:
        told.append(TWICE if epoch in seen else BEHIND if epoch < max(seen, default=-1) else None)
        seen.add(epoch)
    return told, len(seen)


def history(seed: int) -> list[int]:
    """Counts upwards by steps that change, falls back, repeats."""
    draw = random.Random(seed)
    epochs: list[int] = []
    at = draw.randrange(3)
    for _ in range(draw.randrange(1, 20)):
        step = draw.choice([1, 1, 1, 5, 10, 1000])
        for _ in range(draw.randrange(1, 12)):
            epochs.append(at)
            at += step
        epochs += [draw.randrange(at + 1) for _ in range(draw.choice([0, 0, 1, 3]))]
        if draw.random() < 0.2:
            at = draw.randrange(at + 1)
    return epochs


@pytest.mark.parametrize("seed", range(300))
def test_it_tells_what_a_set_would_tell(seed: int) -> None:
    epochs = history(seed)
    order = EpochOrder()
    told = [order.add(epoch) for epoch in epochs]
    assert (told, order.count) == naive(epochs)
    assert order.newest == max(epochs)


def test_a_run_that_counts_upwards_is_one_stretch() -> None:
    order = EpochOrder()
    assert not any(order.add(epoch) for epoch in range(100, 1_000_000, 100))
    assert (order.count, len(order._stretches)) == (9_999, 0)
    assert order.add(500_000) == TWICE
    assert order.add(500_001) == BEHIND
    assert order.add(500_001) == TWICE


def test_a_forgotten_epoch_is_new_and_memory_is_bounded() -> None:
    order = EpochOrder()
    order.add(1_000_000)
    for epoch in range(0, 4 * MAX_STRETCHES, 2):
        assert order.add(epoch) == BEHIND
    assert len(order._stretches) == MAX_STRETCHES
    assert order.add(0) == BEHIND
    assert order.add(1_000_000) == TWICE
