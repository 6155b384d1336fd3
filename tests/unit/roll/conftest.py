from __future__ import annotations

from pathlib import Path

import pytest

from provenance.app.log.export import export
from provenance.formats.record import Kind
from tests.support.verify_world import (
    OTHER,
    SIGNER,
    Fields,
    World,
    before,
    seal,
    story,
    training,
)

DROPPED = OTHER
"""A run that was begun, and nothing more was heard of."""


def with_seed(events: list[Fields], seed: int, accuracy: float = 0.9) -> list[Fields]:
    """The events of a run that states a seed, with that accuracy as its result."""
    stated: list[Fields] = []
    for kind, epoch, body in events:
        if kind is Kind.CONFIG:
            body = body | {"training": {"lr": 0.1, "model": {"seed": seed}}, "name": f"seed {seed}"}
        elif kind is Kind.RESULTS:
            body = {"results": {"accuracy": accuracy}}
        stated.append((kind, epoch, body))
    return stated


@pytest.fixture
def world() -> World:
    """A ledger of the dropped run and, behind it, a whole one with a checkpoint."""
    stage = World(names=())
    stage.ingest(stage.batch(with_seed(before(), 1), run=DROPPED))
    stage.ingest(stage.batch(with_seed(story(3, 2), 2)))
    return stage


@pytest.fixture
def tiles(world: World, tmp_path: Path) -> Path:
    folder = tmp_path / "tiles"
    assert export(world.store, folder, SIGNER.verifier).unaccounted == 0
    return folder


def failed_run(at: int) -> list[Fields]:
    """A run that ended with an error behind a checkpoint of its newest epoch."""
    events = [*before(), *training(at), seal("checkpoint", at)]
    end = {"events": len(events), "reason": "ValueError", "state": "failed"}
    return [*events, (Kind.RUN_END, None, end)]
