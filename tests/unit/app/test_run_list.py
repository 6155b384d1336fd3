"""The list of runs: names, states and numbers as stated, in the order that is asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from provenance import cli
from provenance.app.run_list import Wanted, list_runs
from provenance.cli import output
from provenance.formats.record import Kind
from provenance.report.summary import summary_of
from tests.support.runs import run_of
from tests.support.verify_world import KEY, NOW, RUN, Fields, World, metrics, seal

FIRST = 0x01890A5DAC96


def begun(name: str | None, **labels: Any) -> list[Fields]:
    public_key = KEY.public_key().public_bytes_raw().hex()
    config = {"public_key": public_key, "hash_algorithm": "blake3", "world_size": 1}
    return [(Kind.CONFIG, None, {**config, "name": name, **labels}), seal("before")]


def ended(events: list[Fields], state: str, reason: str) -> list[Fields]:
    done = [*events, seal("after")]
    return [*done, (Kind.RUN_END, None, {"events": len(done), "state": state, "reason": reason})]


@pytest.fixture
def world() -> World:
    """Three runs: finished, failed, running."""
    stage = World(names=())
    results: Fields = (Kind.RESULTS, None, {"results": {"accuracy": 0.875}})
    stories = [
        ended(
            [*begun("beta", group="g", team="vision", tags=["x"]), metrics(1), results],
            "finished",
            "finished",
        ),
        ended(
            [*begun("Alpha", team="Speech", tags=["x", "y"]), metrics(1), metrics(7, loss=0.5)],
            "failed",
            "OSError",
        ),
        [*begun(None), metrics(2, loss=0.25)],
    ]
    for at, events in enumerate(stories):
        stage.ingest(stage.batch(events, run=run_of(FIRST + at, KEY)))
        stage.now += 1
    return stage


def names(stage: World, **wanted: Any) -> list[str | None]:
    with stage.store.snapshot() as tx:
        return [run.name for run in list_runs(tx, Wanted(NOW, **wanted))[0]]


def test_each_run_says_how_it_stands(world: World) -> None:
    with world.store.snapshot() as tx:
        runs, total = list_runs(tx, Wanted(NOW))
    assert total == 3
    assert [run.ending.line for run in runs] == ["running", "failed (OSError)", "finished"]
    assert [run.epoch for run in runs] == [2, 7, 1]
    assert [run.numbers for run in runs] == [
        {"loss": 0.25},
        {"loss": 0.5},
        {"accuracy": 0.875},
    ]
    assert [(run.group, run.tags) for run in runs] == [
        (None, ()),
        (None, ("x", "y")),
        ("g", ("x",)),
    ]
    assert [run.seen - run.begun for run in runs] == [2.0, 5.0, 5.0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"sort": "name"}, ["Alpha", "beta", None]),
        ({"sort": "state"}, ["Alpha", "beta", None]),
        ({"state": "failed"}, ["Alpha"]),
        ({"state": "running"}, [None]),
        ({"name": "ALPH"}, ["Alpha"]),
        ({"tags": ["x"]}, ["Alpha", "beta"]),
        ({"tags": ["x", "y"]}, ["Alpha"]),
        ({"tags": ["y", "z"]}, []),
        ({"group": "g"}, ["beta"]),
        ({"team": "vision"}, ["beta"]),
        ({"team": "visio"}, []),
        ({"sort": "team"}, ["Alpha", "beta", None]),
        ({"size": 2}, [None, "Alpha"]),
        ({"size": 2, "page": 2}, ["beta"]),
        ({"size": 2, "page": 3}, []),
        ({"name": "nobody"}, []),
    ],
)
def test_which_runs_in_which_order(world: World, wanted: dict[str, Any], found: list[str]) -> None:
    assert names(world, **wanted) == found


@pytest.mark.slow
def test_a_run_that_came_first_and_was_seen_last_is_first_by_seen(world: World) -> None:
    first = run_of(FIRST, KEY)
    world.ingest(world.batch([metrics(9)], run=first, producer=b"q" * 16, first=500))
    late = run_of(FIRST + 9, KEY)
    world.ingest(world.batch(begun("old"), run=late))
    assert names(world, sort="seen")[-1] == "old"


def test_values_that_are_none_of_a_trainers_business_are_left_out() -> None:
    stage = World(names=())
    odd = begun(None)
    odd[0][2].update(name=7, tags={"a": 1}, team={}, group=[])
    stage.ingest(stage.batch([*odd, (Kind.RESULTS, None, {"results": "none"})]))
    with stage.store.snapshot() as tx:
        (run,) = list_runs(tx, Wanted(NOW))[0]
    labels = (run.name, run.team, run.group, run.tags, run.numbers)
    assert labels == (None, None, None, (), {})


def stepped(stage: World) -> None:
    """A run with steps alone, of two records, the newer of which came first."""
    parts = [
        {"series": [{"step": steps, "metrics": {"loss": [1 / step for step in steps]}}]}
        for steps in ([10, 20], [30, 40])
    ]
    labels = {"group": "g", "tags": ["y", "x"], "parent": {"run": str(RUN)}}
    events = [*begun("steps", **labels), *((Kind.STEPS, None, part) for part in parts)]
    stage.ingest(stage.batch(events, run=run_of(FIRST + 20, KEY)))


def test_a_run_of_steps_alone_says_its_newest_step() -> None:
    stage = World(names=())
    stepped(stage)
    with stage.store.snapshot() as tx:
        (run,) = list_runs(tx, Wanted(NOW))[0]
    assert (run.epoch, run.step, run.numbers, run.parent) == (None, 40, {"loss": 0.025}, str(RUN))
    assert run.seen - run.begun == 3.0, "the first to the last event"
    stage.sql("UPDATE records SET ts = 'noon' WHERE seq = 3")
    with stage.store.snapshot() as tx:
        assert list_runs(tx, Wanted(NOW))[0][0].begun == run.begun


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The base directory, as the working one, of a deployment with a run of steps."""
    from tests.benchmarks.worlds import local_world

    monkeypatch.chdir(tmp_path)
    stage, _ = local_world(tmp_path)
    stepped(stage)
    return stage


@pytest.mark.slow
def test_one_run_is_told_as_the_list_has_it(
    at_home: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["runs"]
    del listed["seals"]
    assert cli.main(["status", "latest", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {key: shown[key] for key in listed} == listed
    assert cli.main(["status", "latest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in ("name: steps", "group: g", f"parent: {RUN}", "tags: x, y"):
        assert line in lines
    assert "newest: step 40, loss=0.025" in lines
    assert any(line.endswith(", took 3 s") for line in lines)
    with at_home.store.snapshot():
        assert summary_of(at_home.evidence(run_of(FIRST + 20, KEY))).duration == "3 s"


@pytest.mark.usefixtures("at_home")
def test_a_narrow_terminal_shows_what_matters_and_names_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output.out, "_width", 80)
    monkeypatch.setattr(output.out, "_force_terminal", True)
    monkeypatch.setattr(output.out, "no_color", True)
    assert cli.main(["status"]) == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    (row,) = [line for line in text.splitlines() if line.startswith(str(run_of(FIRST + 20, KEY)))]
    assert len(row) <= 80
    assert row.split()[1:] == ["lost", "steps", "step", "40", "loss=0.025", "3", "s"]
    assert "have more: last seen, age, seals, dropped, team, identity, incomplete" in text
    monkeypatch.setattr(output.out, "_force_terminal", False)
    assert cli.main(["status"]) == 0
    assert "have more" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_pages_and_filters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.benchmarks.worlds import database

    monkeypatch.chdir(tmp_path)
    database(tmp_path, 3, 1)
    assert cli.main(["status", "--limit", "2", "--page", "2"]) == 0
    shown = capsys.readouterr().out
    assert "page 2 of 2, 3 runs" in shown
    assert cli.main(["status", "--state", "failed", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["runs"], document["runs_total"]) == ([], 0)
    assert cli.main(["status", "--tag", "x", "--tag", "y", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs_total"] == 0
