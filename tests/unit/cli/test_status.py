"""`provenance status RUN`: what a run waits for, and what it will never get."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provenance import cli
from provenance.bootstrap import sending
from provenance.formats.record import Kind
from provenance.settings import load
from tests.support.verify_world import Fields, World, story


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A deployment with the local network alone, in the folder that commands take."""
    monkeypatch.chdir(tmp_path)
    found = load(None, "artifacts")
    made: Any = World(names=())
    made.store.close()
    made.store = sending.open_store(found)
    made.policy = sending.seal_policy(found)
    made.networks = sending.open_networks(found)
    yield made
    made.store.close()


def naming(networks: object) -> list[Fields]:
    """A run whose trainer's configuration named these networks."""
    return [
        (kind, epoch, {**body, "networks": networks} if kind is Kind.SEAL else body)
        for kind, epoch, body in story()
    ]


def test_a_network_that_only_the_trainer_names_is_told(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.ingest(world.batch(naming(["local", "ethereum", "mars", 7])))
    world.anchor()
    assert cli.main(["status", "latest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("ethereum  after")]
    assert line.split()[2] == "failed"
    assert line.endswith("this deployment has no network ethereum")
    assert not [line for line in lines if "mars" in line]
    assert cli.main(["verify", "latest"]) == 0
    (note,) = [line for line in capsys.readouterr().out.splitlines() if "NOTE" in line]
    assert note == (
        "NOTE (8) ethereum: the run names it, and its deployment has no such network: "
        "no anchor of before, after"
    )


@pytest.mark.parametrize("networks", [["local"], "ethereum", None])
def test_nothing_is_said_where_the_deployment_has_all_that_is_named(
    world: World, networks: object, capsys: pytest.CaptureFixture[str]
) -> None:
    world.ingest(world.batch(naming(networks)))
    world.anchor()
    assert cli.main(["status", "latest"]) == cli.main(["verify", "latest"]) == 0
    shown = capsys.readouterr().out
    assert "NOTE" not in shown
    assert "ethereum" not in shown
