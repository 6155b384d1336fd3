"""A run and one that comes from it, with real weights, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.tensors import state_digest
from provenance.formats.record import Kind
from tests.support.verify_world import OTHER, RUN, Fields, World, before, ending, metrics

CHILD = OTHER
Weights = Mapping[str, Any]


def base() -> dict[str, Any]:
    chance = np.random.default_rng(5)
    return {
        name: chance.normal(size=shape).astype("f4")
        for name, shape in (("fc.bias", 4), ("fc.weight", (4, 3)), ("out.weight", (2, 4)))
    }


def adapted(weights: Weights) -> dict[str, Any]:
    """With a LoRA adapter of rank 2 beside it, under PEFT's names."""
    a, b = np.ones((2, 3), "f4"), np.zeros((4, 2), "f4")
    return {**weights, "fc.lora_A.default.weight": a, "fc.lora_B.default.weight": b}


def wrapped(weights: Weights) -> dict[str, Any]:
    """With such an adapter, whose model has the tensors of `fc` under PEFT's names."""
    names = {n: n.replace("fc.", "fc.base_layer.") for n in weights}
    return {names.get(name, name): value for name, value in adapted(weights).items()}


def fields_of(weights: Weights, algorithm: str = "blake3") -> dict[str, Any]:
    own = {name: np.array(value) for name, value in weights.items()}
    aliases = {n: (n.replace("base_layer.", ""),) for n in own if "base_layer." in n}
    return replace(state_digest(own, HashFactory(algorithm)), aliases=aliases).as_fields()


def story(states: Sequence[Weights], parent: Any = None, algorithm: str = "blake3") -> list[Fields]:
    """A whole run; the first of its states is that before training."""
    events = before()
    events[3] = (Kind.WEIGHTS, None, fields_of(states[0], algorithm))
    kind, epoch, fields = events[4]
    events[4] = (kind, epoch, {**fields, "parent": parent})
    for epoch, weights in enumerate(states[1:], 1):
        events += [metrics(epoch), (Kind.STATE, epoch, fields_of(weights, algorithm))]
    return ending(events)


def named(**more: Any) -> dict[str, Any]:
    return {"run": str(RUN), "epoch": None, **more}


def family(
    theirs: Sequence[Weights], ours: Sequence[Weights], parent: Any, **options: Any
) -> World:
    """The parent as ``RUN`` and the child as ``CHILD``, both final on Bitcoin.

    Args:
        options: ``algorithm`` of the child's digests, ``of_parent``: what the parent names itself.
    """
    world = World(("bitcoin",))
    world.ingest(world.batch(story(theirs, options.pop("of_parent", None))))
    world.ingest(world.batch(story(ours, parent, **options), run=CHILD, producer=b"c" * 16))
    world.anchor()
    return world
