"""The roll of all runs, in a bundle and as a command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.bundle.reader import read_bundle
from provenance.bundle.sources import MemorySource
from provenance.bundle.writer import bundle_files
from provenance.errors import FormatError, UnknownRunError
from provenance.evidence.disclosure import withhold
from provenance.formats.json_text import canonical_json
from provenance.roll.from_database import roll_of
from provenance.roll.roll import FILE, Roll, RolledRun, config_digest, seeds_of
from provenance.roll.statistics import runs_before
from tests.support import stranger
from tests.support.runs import run_of
from tests.support.verify_world import KEY, RUN, World, story
from tests.unit.roll.conftest import DROPPED, with_seed

Document = dict[str, Any]


@pytest.fixture
def roll(world: World) -> Roll:
    with world.store.snapshot() as tx:
        return roll_of(tx, 4, world.now, 1e9)


def files_of(world: World, data: bytes) -> dict[str, bytes]:
    return bundle_files(replace(world.evidence(), attachments={FILE: data}))


def test_a_bundle_with_the_roll_holds_and_says_what_stays_open(world: World, roll: Roll) -> None:
    files = files_of(world, roll.encode())
    report = world.verify(read_bundle(MemorySource(files, "bundle")), online=False)
    assert not report.findings
    assert any(line.startswith("What the roll says of other runs") for line in report.not_checked)
    before = report.runs_before
    assert before is not None
    assert (before.runs, before.unfinished, before.data) == (1, {"running": 1}, 1)
    theirs = stranger.load().Bundle(files)
    assert theirs.problems == []
    assert f"{FILE}: what the roll says of other runs beside their entries" in theirs.unproven


def test_a_bundle_without_one_is_as_it_was(world: World) -> None:
    report = world.verify(online=False)
    assert report.runs_before is None
    assert FILE not in bundle_files(world.evidence())


def edit(change: Callable[[Document], object]) -> Callable[[Document], Document]:
    def forge(document: Document) -> Document:
        change(document)
        return document

    return forge


def without_dropped(document: Document) -> None:
    """The dropped run and its entry are left out, and the others move up."""
    document["entries"] = document["entries"][1:]
    document["size"] = 3
    document["runs"] = [{**document["runs"][1], "entries": [0, 1, 2]}]


FORGED: dict[str, tuple[Callable[[Document], object], str]] = {
    "a dropped run": (without_dropped, "its size is 3, expected that of a head that holds"),
    "a dropped run, its entry left": (lambda d: d["runs"].pop(0), "entry 0 is of no run"),
    "its entry given to another": (
        lambda d: d["runs"][0].update(entries=[1]),
        "entry 1 is of run .* and of run",
    ),
    "an entry that is none": (
        lambda d: d["runs"][0].update(entries=[4]),
        r"runs\[0\].entries\[0\]: found 4, expected a whole number from 0 to 3",
    ),
    "an entry doubled": (
        lambda d: d["runs"][0].update(entries=[0, 0]),
        r"runs\[0\].entries: found a list, expected indexes in ascending order, each once",
    ),
    "another entry's root": (
        lambda d: d["entries"].__setitem__(0, d["entries"][1]),
        "its 4 entries give root .*, the head's is",
    ),
    "a run twice": (lambda d: d["runs"].append(d["runs"][0]), "found a run twice"),
    "own entries swapped": (
        lambda d: (d["runs"][0].update(entries=[0, 1]), d["runs"][1].update(entries=[2, 3])),
        r"has entries \[2, 3\] of this run, run.json has \[1, 2, 3\]",
    ),
    "an unknown state": (lambda d: d["runs"][0].update(state="fine"), "state: found 'fine'"),
    "no name": (lambda d: d["runs"][0].update(name=5), "name: found 5"),
    "no digest of data": (lambda d: d["runs"][0].update(data=[]), "data: found"),
    "no digest of a configuration": (lambda d: d["runs"][0].update(config="0"), "config: found"),
    "seeds in a list": (lambda d: d["runs"][0].update(seeds=[]), "seeds: found"),
    "results in an object": (lambda d: d["runs"][0].update(results={"a": {}}), "results.a: found"),
    "a number that is long text": (
        lambda d: d["runs"][0].update(results={"a": "x" * 201}),
        "results.a: found",
    ),
    "own seeds": (
        lambda d: d["runs"][1].update(seeds={"model.seed": 9}),
        "says of this run another config or seeds than its records give",
    ),
    "own configuration": (
        lambda d: d["runs"][1].update(config="00" * 32),
        "another config or seeds than",
    ),
    "own data": (lambda d: d["runs"][1].update(data=None), "another data than"),
    "own state": (lambda d: d["runs"][1].update(state="failed"), "another state than"),
    "another key": (lambda d: d.update(more=1), "more: unknown key"),
    "another version": (lambda d: d.update(v=2), "v: found version 2, expected 1"),
}


@pytest.mark.parametrize(("change", "line"), FORGED.values(), ids=FORGED)
def test_a_forged_roll_is_refused_with_one_line(
    world: World, roll: Roll, change: Callable[[Document], object], line: str
) -> None:
    document = edit(change)(json.loads(roll.encode()))
    files = files_of(world, canonical_json(document))
    report = world.verify(read_bundle(MemorySource(files, "bundle")), online=False)
    [finding] = report.findings
    assert (finding.check, finding.file) == (6, FILE)
    assert re.search(line, finding.problem), finding.problem
    [problem] = stranger.load().Bundle(files).problems
    assert problem.startswith(FILE)


@pytest.mark.parametrize("own", [{"name": "other"}, {"results": {"accuracy": 0.99}}])
def test_a_summary_of_this_run_is_held_against_its_records(
    world: World, roll: Roll, own: Document
) -> None:
    document = json.loads(roll.encode())
    document["runs"][1].update(own)
    files = files_of(world, canonical_json(document))
    [finding] = world.verify(read_bundle(MemorySource(files, "bundle")), online=False).findings
    assert finding.problem == f"says of this run another {next(iter(own))} than its records give"


def test_withheld_records_leave_what_they_say_open(world: World, roll: Roll) -> None:
    document = json.loads(roll.encode())
    own: Document = {"seeds": {"seed": 9}, "config": None, "name": "x", "data": None, "results": {}}
    document["runs"][1].update(own)
    evidence = replace(world.evidence(), attachments={FILE: canonical_json(document)})
    files = bundle_files(withhold(evidence, ["model"]))
    assert not world.verify(read_bundle(MemorySource(files, "bundle")), online=False).findings
    assert stranger.load().Bundle(files).problems == []


def test_seeds_do_not_make_another_configuration() -> None:
    one: Document = {
        "lr": 0.1,
        "seed": 1,
        "data": {"shuffle_seed": 3, "seeds": [1, 2]},
        "seedling": 4,
    }
    other: Document = {"lr": 0.1, "seed": 2, "data": {"shuffle_seed": 5}, "seedling": 4}
    assert config_digest(one) == config_digest(other)
    assert config_digest(one) != config_digest(other | {"seedling": 5})
    expected = {"seed": 1, "data.shuffle_seed": 3, "data.seeds": "[1,2]"}
    assert seeds_of(one) == expected


def run_at(milliseconds: int) -> UUID:
    return run_of(0x01890A5DAC96 + milliseconds, KEY)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["finished", "failed", "running", "pruned"]),
            st.sampled_from([b"a" * 32, b"b" * 32]),
            st.sampled_from([b"c" * 32, b"d" * 32]),
            st.integers(0, 2),
            st.integers(0, 9),
        ),
        max_size=8,
    ),
    st.integers(0, 8),
)
def test_the_numbers_are_those_of_a_naive_count(rows: list[Any], at: int) -> None:
    at = min(at, len(rows))
    rows.insert(at, ("finished", b"a" * 32, b"c" * 32, 0, 5))
    runs = [
        RolledRun(run_at(n), (n,), state, None, data, config, {"seed": seed}, {"accuracy": value})
        for n, (state, data, config, seed, value) in enumerate(rows)
    ]
    found = runs_before(Roll(len(runs), (), tuple(runs)), run_at(at))
    earlier = rows[:at]
    like = [row for row in earlier if row[1] == b"a" * 32]
    assert found.runs == at
    assert sum(found.unfinished.values()) == sum(r[0] in ("failed", "running") for r in earlier)
    assert found.data == len(like)
    assert found.config == sum(row[2] == b"c" * 32 for row in like)
    assert found.seeds == len({row[3] for row in like})
    values = [row[4] for row in like if row[0] in ("finished", "pruned")]
    if not values:
        assert found.results == {}
        return
    spread = found.results["accuracy"]
    assert (spread.lowest, spread.highest) == (min(values), max(values))
    assert spread.median == median(values)
    assert (spread.above, spread.below) == (sum(v > 5 for v in values), sum(v < 5 for v in values))


def test_a_run_that_never_had_a_seal_is_told(world: World) -> None:
    unsealed = run_of(0x01890A5D0000, KEY)
    world.ingest(world.batch(story()[:2], run=unsealed))
    with world.store.snapshot() as tx:
        roll = roll_of(tx, 4, world.now, 1e9)
    assert [(item.run, item.entries) for item in roll.runs][-1] == (unsealed, ())
    assert Roll.decode(roll.encode()) == roll
    assert runs_before(roll, RUN).runs == 2


def test_seeds_and_results_of_runs_like_it(world: World) -> None:
    third = run_of(0x01890A5E0000, KEY)
    world.ingest(world.batch(with_seed(story(3), 7, accuracy=0.7), run=third))
    with world.store.snapshot() as tx:
        roll = roll_of(tx, 6, world.now, 1e9)
    before = runs_before(roll, third)
    assert (before.runs, before.data, before.config, before.seeds) == (2, 2, 2, 2)
    assert before.own_seeds == {"model.seed": 7}
    assert before.lines[-1] == (
        "accuracy: 0.9 lowest, 0.9 median, 0.9 highest of 1; 1 above and 0 below its 0.7"
    )
    with pytest.raises(UnknownRunError):
        runs_before(roll, run_at(99))


def test_a_cut_roll_is_no_roll(roll: Roll) -> None:
    data = roll.encode()
    for at in range(0, len(data), 37):
        with pytest.raises(FormatError):
            Roll.decode(data[:at])


def test_the_dropped_run_is_named_first(roll: Roll) -> None:
    assert [item.run for item in roll.runs] == [DROPPED, RUN]
    assert roll.runs[0].seeds == {"model.seed": 1}
