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
from tests.support.verify_world import (
    Fields,
    World,
    before,
    ending,
    metrics,
    seal,
    story,
    training,
)


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


@pytest.mark.slow
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
    lines = capsys.readouterr().out.splitlines()
    (note,) = [line for line in lines if "NOTE" in line]
    assert lines.index(note) < next(at for at, line in enumerate(lines) if "before " in line)
    assert note == (
        "  NOTE (8) ethereum: the run names it, and its deployment has no such network: "
        "no anchor of before, after"
    )


@pytest.mark.slow
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


def waits_for(capsys: pytest.CaptureFixture[str]) -> str | None:
    assert cli.main(["status", "latest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = [line for line in lines if line.startswith("waits for: ")]
    assert len(found) < 2
    return found[0].removeprefix("waits for: ") if found else None


@pytest.mark.slow
def test_an_open_run_says_what_it_waits_for(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two ranks, one of which is late, and a batch that comes after the next one."""
    begun = before(world_size=2)
    mine = ending([*begun, *training(3, checkpoint=3)])
    other = [metrics(1), seal("checkpoint", 3), (Kind.RUN_END, None, {"events": 2, "reason": "x"})]
    batch = world.batch

    world.ingest(batch(mine[: len(begun) - 1]))
    assert waits_for(capsys) == "no run.seal of before yet; no run.end yet from rank 0"
    world.ingest(batch(mine[len(begun) - 1 : 8], first=len(begun) - 1))
    assert waits_for(capsys) == "nothing came from rank 1 of 2; no run.end yet from rank 0"
    batch(mine)  # is never sent: the later batches continue its chain
    world.ingest(batch(mine[9:], first=9))
    assert waits_for(capsys) == (
        "rank 0 has a hole at event 8; nothing came from rank 1 of 2; "
        "marks of epoch 3 from ranks 0, 1"
    )
    world.ingest(batch(mine[8:9], first=8))
    assert waits_for(capsys) == "nothing came from rank 1 of 2; marks of epoch 3 from rank 1"
    world.ingest(batch(other[:1], producer=b"q" * 16, rank=1))
    assert waits_for(capsys) == "no run.end yet from rank 1; marks of epoch 3 from rank 1"
    world.ingest(batch(other[1:], producer=b"q" * 16, rank=1, first=1))
    assert waits_for(capsys) is None, "sealed"


def test_a_run_without_a_configuration_names_each_rank_without_an_end(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.ingest(
        world.batch(before()[:3]),
        world.batch([metrics(1)], producer=b"q" * 16, rank=1),
    )
    assert waits_for(capsys) == "no run.seal of before yet; no run.end yet from ranks 0, 1"
    assert cli.main(["status", "latest"]) == 0
    assert "no configuration says how many ranks there are" in capsys.readouterr().out


def test_a_training_that_ended_without_its_last_call_is_told(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = before()
    world.ingest(world.batch([*begun, (Kind.RUN_END, None, {"events": 6, "reason": "exit"})]))
    assert waits_for(capsys) == "no run.seal of after: the training ended without it"


def test_many_ranks_are_one_short_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.ingest(world.batch(before(world_size=500_000)))
    told = str(waits_for(capsys))
    assert told.startswith("nothing came from ranks 1, 2, 3, ")
    assert "19, 20 and 499979 more of 500000; no run.end yet from rank 0" in told
