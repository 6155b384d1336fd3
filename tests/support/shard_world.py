"""A run of two ranks that share its weights: each recorded half of the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.shards import HeldState
from provenance.fingerprint.tensors import state_digest
from provenance.formats.record import Kind
from tests.support.model_world import weights
from tests.support.verify_world import Fields, World, before, ending, metrics

SHARED = ("fc.bias", "fc.weight")
"""``norm.count`` is each rank's own."""
EPOCHS = 3
Change = Callable[[int, int, dict[str, Any]], dict[str, Any] | None]
"""From rank, epoch and the body of the record to another one, or none."""


def shards(rank: int, state: dict[str, Any], algorithm: str = "blake3") -> dict[str, Any]:
    """The body of a rank's record: two rows of four of what is shared, and all of the rest."""
    held = {n: v[2 * rank : 2 * rank + 2] if n in SHARED else v for n, v in state.items()}
    places = {n: (state[n].shape, (2 * rank, 0)[: state[n].ndim]) for n in SHARED}
    fields = state_digest(held, HashFactory(algorithm)).as_fields()
    return HeldState(held, places).placed(fields)


def story(
    rank: int,
    change: Change | None = None,
    metrics_of: Callable[[int, int], bool] | None = None,
    first: dict[str, Any] | None = None,
    again: int | None = None,
) -> list[Fields]:
    """The events of one rank, and of rank 0 the run's too.

    Args:
        metrics_of: Whether a rank recorded those of an epoch; all where None.
        first: Rank 0's weights before training.
        again: The weights of this epoch come once more, as those of the last.
    """
    events: list[Fields] = [] if rank else before(world_size=2)
    if first is not None and rank == 0:
        events[3] = (Kind.WEIGHTS, None, first)
    for epoch in range(1, EPOCHS + 1):
        if metrics_of is None or metrics_of(rank, epoch):
            events.append(metrics(epoch))
        body: dict[str, Any] | None = shards(rank, weights(epoch))
        if change is not None and body is not None:
            body = change(rank, epoch, body)
        if body is not None:
            events.append((Kind.STATE, epoch, body))
    if again is not None:
        events.append((Kind.STATE, EPOCHS, shards(rank, weights(again))))
    if rank == 0:
        return ending(events)
    return [*events, (Kind.RUN_END, None, {"events": len(events), "reason": "x"})]


def sharded(change: Change | None = None, ranks: Any = (0, 1), **more: Any) -> World:
    """A world with the run, sealed after its grace and final."""
    world = World(names=("local",))
    for rank in ranks:
        world.ingest(
            world.batch(story(rank, change, **more), producer=bytes([65 + rank]) * 16, rank=rank)
        )
    world.sweep(later=100.0)
    world.anchor()
    return world
