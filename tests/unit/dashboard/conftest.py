"""One deployment and its server for the tests here: they only read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.deployment.dashboard import recorded, served


@dataclass(frozen=True)
class World:
    """``runs``: the oldest first."""

    base: Path
    url: str
    runs: list[UUID]


@pytest.fixture(autouse=True)
def a_base(tmp_path: Path) -> None:
    """What ``up`` makes first: beside other tests' deployments a folder without it is mistyped."""
    (tmp_path / "run").mkdir()


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    base = tmp_path_factory.mktemp("deployment") / "artifacts"
    runs = recorded(base)
    with served(base) as url:
        yield World(base, url, runs)
