"""``provenance log runs`` and ``bundle --runs`` as they are called."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provenance.app.report import write_report
from provenance.bootstrap import sending
from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import bundle_files, write_files
from provenance.cli import main
from provenance.cli.output import when
from provenance.roll.roll import FILE
from provenance.settings import Settings, load
from tests.support.verify_world import RUN, World, before, story
from tests.unit.roll.conftest import DROPPED, with_seed

pytestmark = pytest.mark.slow
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A deployment with a dropped run and a whole one, anchored in its local file."""
    found = load(None, tmp_path / "artifacts")
    world: Any = World(names=())
    world.store.close()
    world.store = sending.open_store(found)
    world.policy = sending.seal_policy(found)
    world.networks = sending.open_networks(found)
    world.ingest(world.batch(with_seed(before(), 1), run=DROPPED))
    world.ingest(world.batch(with_seed(story(3, 2), 2)))
    world.anchor()
    world.store.close()
    return found


def answer(settings: Settings, capsys: Captured, *words: str, code: int = 0) -> dict[str, Any]:
    assert main([*words, "--base-dir", str(settings.base_dir), "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_one_list_from_database_tiles_and_bundle(
    settings: Settings, tmp_path: Path, capsys: Captured
) -> None:
    tiles, bundle = tmp_path / "tiles", tmp_path / "bundle.zip"
    answer(settings, capsys, "log", "export", str(tiles))
    answer(settings, capsys, "bundle", str(RUN), "-o", str(bundle), "--runs")
    own = answer(settings, capsys, "log", "runs")
    assert [(r["run"], r["state"], r["entries"]) for r in own["runs"]] == [
        (str(DROPPED), "lost", [0]),
        (str(RUN), "finished", [1, 2, 3]),
    ]
    where = [(r["anchored"]["network"], r["anchored"]["stated"]) for r in own["runs"]]
    assert where == [("local", True)] * 2
    assert own["runs"][1]["results"] == {"accuracy": 0.9}
    served = answer(settings, capsys, "log", "runs", str(tiles))
    assert [(r["run"], r["state"]) for r in served["runs"]] == [
        (str(DROPPED), "silent"),
        (str(RUN), "finished"),
    ]
    brought = answer(settings, capsys, "log", "runs", str(bundle), "--before", str(RUN)[:13])
    assert brought["before"]["runs"] == 1
    assert brought["before"]["own_seeds"] == {"model.seed": 2}
    for found in (own, served, brought):
        assert (found["size"], found["key_pinned"], found["unaccounted"]) == (4, True, [])
    assert (own["word"], served["word"]) == (None, None)
    main(["log", "runs", str(bundle), "--base-dir", str(settings.base_dir)])
    assert capsys.readouterr().out.splitlines()[-1] == (
        "rests on: the head's root, for the entries and whose they are, and the records of the "
        "bundle's own run; states, names and results of others are the database's word. What the "
        f"bundle rests on: provenance verify {bundle}"
    )
    verified = answer(settings, capsys, "verify", str(bundle), "--offline", code=3)
    assert verified["runs_before"] == brought["before"]


def test_a_chain_s_block_comes_before_an_earlier_time_of_the_local_file(
    tmp_path: Path, capsys: Captured
) -> None:
    found = load(None, tmp_path)
    world: Any = World(names=("local", "ethereum"))
    world.store.close()
    world.store = sending.open_store(found)
    world.ingest(world.batch(story(1)))
    world.anchor()
    with world.store.snapshot() as tx:
        times = {row.network: row.block_time or 0.0 for row in tx.anchors()}
    assert times["local"] < times["ethereum"]
    world.store.close()
    [own] = answer(found, capsys, "log", "runs")["runs"]
    assert (own["anchored"]["network"], own["anchored"]["stated"]) == ("ethereum", False)
    assert own["anchored"]["before"] == when(times["ethereum"])
    assert main(["log", "runs", "--base-dir", str(tmp_path)]) == 0
    assert "(ethereum)" in capsys.readouterr().out


FORGED = {
    "a record": (b"0.9}", b"0.99}", "(1) training/results: "),
    "the roll": (b"0.9}", b"0.99}", f"(6) {FILE}: says of this run another results"),
    "its end": (
        b'"finished"',
        b'"failed"',
        f"(6) {FILE}: says of this run another state",
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_bundle_that_does_not_hold_is_refused_in_one_line(
    what: str, settings: Settings, tmp_path: Path, capsys: Captured
) -> None:
    """Written anew by who forges it, so that its manifest fits."""
    true, forged = tmp_path / "true", tmp_path / "forged"
    old, new, line = FORGED[what]
    answer(settings, capsys, "bundle", str(RUN), "-o", str(true), "--runs")
    evidence = read_bundle(true)
    records, rolls = evidence.records, {FILE: evidence.attachments[FILE]}
    if what == "a record":
        records = tuple(
            replace(r, data=r.data.replace(old, new))
            if r.path == "training/results" and r.data
            else r
            for r in records
        )
    else:
        rolls = {FILE: rolls[FILE].replace(old, new)}
    evidence = replace(evidence, records=records, attachments={**evidence.attachments, **rolls})
    write_files(bundle_files(evidence), forged)
    assert main(["log", "runs", str(forged), "--base-dir", str(settings.base_dir)]) == 1
    captured = capsys.readouterr()
    [said] = captured.err.splitlines()
    assert f"forged: run {RUN} does not hold, " in said
    assert f": {line}" in said
    assert captured.out == ""


def test_what_a_person_sees(settings: Settings, tmp_path: Path, capsys: Captured) -> None:
    base = ("--base-dir", str(settings.base_dir))
    assert main(["log", "runs", "--limit", "1", *base]) == 0
    said = capsys.readouterr().out
    assert str(DROPPED) in said
    assert str(RUN) not in said
    assert "page 1 of 2, 2 runs in 4 entries" in said
    assert main(["log", "runs", "--before", str(RUN), *base]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        f"runs that began before run {RUN}: 1; not finished: 1 lost",
        "with its training data: 1; its configuration too: 1",
        "different seeds: 1, in 1 of these; its own: model.seed 2",
    ]
    page = write_report(settings, str(RUN), tmp_path / "report").read_text()
    assert "Runs before this one" in page
    assert "with its training data: 1; its configuration too: 1" in page


def test_an_entry_of_nobody_is_said_and_is_exit_code_1(
    settings: Settings, tmp_path: Path, capsys: Captured
) -> None:
    tiles = tmp_path / "tiles"
    answer(settings, capsys, "log", "export", str(tiles))
    (tiles / "tile/accounts/000.p/4").write_bytes(bytes(8))
    assert main(["log", "runs", str(tiles), "--base-dir", str(settings.base_dir)]) == 1
    assert "entry 0: unaccounted for: nothing says which run it is of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("log runs {0}/nothing", "nothing: not a bundle, there is no such folder or file"),
        ("log runs {0}/bundle", "has no ledger/runs.json; write one with: provenance bundle RUN"),
        ("log runs --ledger-key k", "--ledger-key: verifier key 'k'"),
        (
            "log runs --before 0123456789",
            "run 0123456789: found 0 in database, expected a run's id",
        ),
        ("log runs --before nope", "expected a run's id, 8 or more of its first or last digits"),
        ("bundle latest -o {0}/b --runs --disclose metrics", "--runs: tells configurations"),
    ],
)
def test_a_users_mistake_is_one_line(
    settings: Settings, tmp_path: Path, capsys: Captured, words: str, line: str
) -> None:
    base = ("--base-dir", str(settings.base_dir))
    assert main(["bundle", str(RUN), "-o", str(tmp_path / "bundle"), *base]) == 0
    capsys.readouterr()
    assert main([*words.format(tmp_path).split(), *base]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert line in said


def test_tiles_by_another_key_are_refused(
    settings: Settings, tmp_path: Path, capsys: Captured
) -> None:
    tiles, other = tmp_path / "tiles", tmp_path / "other"
    answer(settings, capsys, "log", "export", str(tiles))
    words = ["log", "runs", str(tiles), "--base-dir", str(other)]
    assert main(words) == 0
    assert "nobody pinned: say it with --ledger-key VKEY" in capsys.readouterr().err
    foreign = sending.ledger_signer(load(None, other)).verifier.vkey
    assert main([*words, "--ledger-key", foreign]) == 1
    [said] = capsys.readouterr().err.splitlines()
    assert "checkpoint: note has no signature by" in said
