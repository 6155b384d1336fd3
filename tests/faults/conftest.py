"""Deployments for the fault tests, ended with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.support.harness import LONG, World


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long form needs more than the usual time."""
    if LONG:
        for item in items:
            if "faults" in Path(item.path).parts:
                item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """``make_world(**World arguments)``; each call is a deployment of its own."""
    made: list[World] = []

    def make(**arguments: Any) -> World:
        world = World(tmp_path / f"world{len(made)}", **arguments)
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A deployment with the local network alone."""
    return make_world()
