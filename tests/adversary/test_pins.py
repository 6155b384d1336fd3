"""Attempts to have "verified" said of what nobody pinned, at the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from provenance import cli
from provenance.app.bundle import make_bundle
from provenance.bootstrap import reading, sending
from provenance.bundle.index import dump
from provenance.settings import Settings, load
from tests.support.verify_world import World, metrics, story

pytestmark = pytest.mark.slow
Said = pytest.CaptureFixture[str]


def deployment(base: Path, *more: Any) -> Settings:
    """A finished run on the network ``local``, with a key of its own."""
    settings = load(None, base)
    world: Any = World(names=())
    world.store.close()
    world.store = sending.open_store(settings)
    world.policy = sending.seal_policy(settings)
    world.networks = sending.open_networks(settings)
    world.ingest(world.batch(story()))
    for payload in more:
        world.ingest(payload)
    world.anchor()
    world.store.close()
    return settings


@pytest.fixture
def foreign(tmp_path: Path) -> tuple[Path, str]:
    """A bundle of a deployment that is gone, and its ledger's key."""
    settings = deployment(tmp_path / "foreign")
    bundle = make_bundle(settings, "latest", tmp_path / "bundle").path
    key = reading.ledger_key(settings)
    assert key is not None
    shutil.rmtree(tmp_path / "foreign")
    return bundle, key.vkey


def verify(said: Said, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = cli.main(["verify", *arguments, "--json"])
    return code, json.loads(said.readouterr().out)


def test_a_foreign_bundle_is_not_pinned_by_another_ledgers_key(
    foreign: tuple[Path, str], tmp_path: Path, capsys: Said
) -> None:
    """On the machine of a deployment with a key of its own, with and without asking nodes."""
    bundle, vkey = foreign
    own = str(deployment(tmp_path / "own").base_dir)
    for options in (["--offline"], []):
        code, report = verify(capsys, str(bundle), "--base-dir", own, *options)
        assert (code, report["outcome"], report["findings"]) == (3, "consistent", [])
        assert report["verdict"]["key_pinned_by"] is None
    code, report = verify(capsys, str(bundle), "--offline", "--base-dir", own, "--trust", vkey)
    assert (code, report["verdict"]["key_pinned_by"]) == (3, "--trust")
    assert any("no anchor" in line for line in report["verdict"]["missing"])
    wanted = ["--trust", vkey, "--require", "key"]
    assert verify(capsys, str(bundle), "--offline", "--base-dir", own, *wanted)[0] == 0


def test_the_first_lines_say_what_a_verdict_rests_on(
    foreign: tuple[Path, str], tmp_path: Path, capsys: Said
) -> None:
    bundle, vkey = foreign
    label = "+".join(vkey.split("+")[:2])
    assert cli.main(["verify", str(bundle), "--offline", "--base-dir", str(tmp_path / "no")]) == 3
    first = capsys.readouterr().out.splitlines()[:6]
    assert first[0].endswith(": consistent")
    assert any(label in line and "which nobody pinned" in line for line in first)
    assert any("local: nothing that was seen outside" in line for line in first)
    assert any("nobody stands behind the run" in line for line in first)


def test_anchors_that_are_denied_are_missed(
    foreign: tuple[Path, str], tmp_path: Path, capsys: Said
) -> None:
    """``anchors`` emptied and receipts taken out: the entries still ask for an anchor."""
    bundle, vkey = foreign
    run = json.loads((bundle / "run.json").read_text())
    for name in run["receipts"]:
        (bundle / "receipts" / f"{name}.json").unlink()
    run["receipts"], run["anchors"] = [], []
    (bundle / "run.json").write_bytes(dump(run))
    for derived in ("tlog", "statement"):  # they name receipts; a bundle need not have them
        shutil.rmtree(bundle / derived, ignore_errors=True)
    remake(bundle)
    pins = ["--trust", vkey, "--require", "key"]
    code, report = verify(capsys, str(bundle), "--offline", "--base-dir", str(tmp_path), *pins)
    assert (code, report["findings"]) == (3, []), json.dumps(report["findings"])
    assert report["outcome"] == "consistent"
    assert any("no receipt of before, after" in line for line in report["verdict"]["missing"])


def remake(bundle: Path) -> None:
    """The manifest and the sums made anew, as any carrier can."""
    from tests.unit.bundle.test_writer import remake as again

    again(bundle)


def test_notices_are_printed(tmp_path: Path, capsys: Said) -> None:
    """A second value for an event that was signed before: the text says so, in every form."""
    world = World()
    second = world.batch([metrics(1, loss=9.0)], first=6)
    base = str(deployment(tmp_path / "base", second).base_dir)
    assert cli.main(["verify", "latest", "--base-dir", base]) == 0
    assert "NOTE (4) equivocation" in capsys.readouterr().out
    assert cli.main(["verify", "--all", "--base-dir", base]) == 0
    assert "1 note" in capsys.readouterr().out
