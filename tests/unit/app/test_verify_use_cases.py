"""Verification as the command line and the tracker call it: settings in, report out."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from provenance import files
from provenance.app.bundle import make_bundle
from provenance.app.report import write_report
from provenance.app.verify import verify_path, verify_run
from provenance.bootstrap import sending
from provenance.bundle.shell_proof import path_of_record_file
from provenance.errors import InputError, IntegrityError, UnknownRunError
from provenance.settings import Settings, load
from provenance.verify.verdict import LOCAL_ALONE
from tests.support.runs import some_run
from tests.support.verify_world import RUN, World, flip_metric, story

RECORD = "records/training/epoch/2/metrics/0.json"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A deployment with a SQLite file, the local network and one finished run."""
    found = load(None, tmp_path / "artifacts")
    world: Any = World(names=())
    world.store.close()
    world.store = sending.open_store(found)
    world.policy = sending.seal_policy(found)
    world.networks = sending.open_networks(found)
    world.ingest(world.batch(story()))
    world.anchor()
    world.store.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", [str(RUN), RUN.hex[:8], "latest"])
def test_a_run_is_verified_on_its_real_local_network(settings: Settings, name: str) -> None:
    report = verify_run(settings, name)
    assert report.outcome == "verified", report.findings
    assert report.run == RUN
    assert report.networks["local"]["after"].status == "verified"
    assert report.networks["local"]["after"].time is not None
    assert report.verdict.rests_on[1] == LOCAL_ALONE
    assert verify_run(settings, name, offline=True).exit_code == 3
    assert verify_run(settings, name, networks={}).exit_code == 3


def test_a_run_that_is_not_there_is_said(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UnknownRunError, match="known: 1 run, newest"):
        verify_run(settings, "01890a5d-ffff")
    with pytest.raises(UnknownRunError, match="there is no database yet"):
        verify_run(load(None, tmp_path / "empty"), "latest")
    assert not (tmp_path / "empty").exists(), "verifying makes no files"


def test_a_damaged_row_is_one_line(settings: Settings) -> None:
    with sqlite3.connect(settings.base_dir / "ledger.db") as database:
        database.execute("UPDATE records SET kind='bogus' WHERE seq=3")
    with pytest.raises(IntegrityError, match="run latest cannot be read: .*bogus"):
        verify_run(settings, "latest", offline=True)


@pytest.mark.slow
def test_the_report_comes_with_its_evidence(settings: Settings) -> None:
    page = write_report(settings, "latest")
    folder = settings.base_dir / "reports" / str(RUN)
    assert page == folder / "report.html"
    assert {p.name for p in folder.iterdir()} == {"report.html", "report.json", "evidence"}
    assert json.loads((folder / "report.json").read_text())["outcome"] == "verified"
    for place in (folder, folder / "evidence"):
        assert verify_path(settings, place).outcome == "consistent"
        assert verify_path(settings, place, offline=False).outcome == "verified"
    assert write_report(settings, "latest", settings.base_dir / "mine").parent.name == "mine"


@pytest.mark.slow
def test_of_old_reports_nothing_but_reports_is_deleted(settings: Settings) -> None:
    settings = replace(settings, keep_reports=2)
    newest = write_report(settings, "latest").parent
    reports, elsewhere = newest.parent, settings.base_dir / "elsewhere"
    names = ["old", "cut short", "beside", "in the evidence", "linked", "in use", "kept"]
    folders = {name: reports / str(some_run()) for name in names}
    for at, folder in enumerate((*folders.values(), reports / "by hand", elsewhere)):
        shutil.copytree(newest, folder)
        os.utime(folder / "report.json", (at, at))
    shutil.rmtree(folders["cut short"] / "evidence")
    (folders["beside"] / "mine.txt").touch()
    (folders["in the evidence"] / "evidence" / "mine.txt").touch()
    shutil.rmtree(folders["linked"])
    folders["linked"].symlink_to(elsewhere)
    os.utime(folders["kept"] / "report.json")
    with files.locked(folders["in use"]):
        write_report(settings, "latest")
    assert [name for name, folder in folders.items() if not folder.exists()] == names[:2]
    write_report(settings, "latest")
    assert not folders["in use"].exists()
    stays = (newest, reports / "by hand", elsewhere, folders["in the evidence"])
    for folder in (*stays, folders["linked"]):
        assert {p.name for p in folder.iterdir()} == {"report.html", "report.json", "evidence"}
    write_report(replace(settings, keep_reports=1), "latest")
    assert not folders["kept"].exists()
    shutil.rmtree(newest)
    assert write_report(settings, str(RUN)).exists(), "it can be made again"


@pytest.mark.slow
def test_what_is_no_report_of_ours_is_not_overwritten(settings: Settings, tmp_path: Path) -> None:
    page = tmp_path / "site" / "report.html"
    page.parent.mkdir()
    write_report(settings, "latest", page.parent)  # empty so far
    write_report(settings, "latest", page.parent)  # a report
    (page.parent / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"site: holds something that is no report.*mine\.txt"):
        write_report(settings, "latest", page.parent)
    (page.parent / "mine.txt").unlink()
    (page.parent / "report.json").write_text('{"tests": 7}')
    page.write_text("of a test runner")
    with pytest.raises(InputError, match=r"nothing was overwritten \(report\.json: run_id"):
        write_report(settings, "latest", page.parent)
    assert page.read_text() == "of a test runner"
    with pytest.raises(InputError, match="holds something that is no report"):
        write_report(settings, "latest", page)


@pytest.mark.slow
def test_a_report_is_as_private_as_the_database(settings: Settings, tmp_path: Path) -> None:
    folder = write_report(settings, "latest").parent
    make_bundle(settings, "latest", settings.base_dir / "bundles" / "b")
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    for place in (folder.parent, settings.base_dir / "bundles"):
        for path in (place, *place.rglob("*")):
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    elsewhere = tmp_path / "for the auditor"
    write_report(settings, "latest", elsewhere)
    assert (elsewhere / "report.html").stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert (elsewhere / "evidence/run.json").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.slow
def test_one_changed_metric_in_a_copy_is_named(settings: Settings, tmp_path: Path) -> None:
    folder = make_bundle(settings, "latest", tmp_path / "bundle").path
    record = folder / RECORD
    assert "under run root" in path_of_record_file(record).text()
    record.write_bytes(flip_metric(record.read_bytes()))
    report = verify_path(settings, folder)
    assert [f.subject for f in report.findings] == ["training/epoch/2/metrics/0"]
    assert report.exit_code == 1


def test_a_bundle_elsewhere_says_what_it_cannot_ask(settings: Settings, tmp_path: Path) -> None:
    folder = make_bundle(settings, "latest", tmp_path / "bundle").path
    elsewhere = load(None, tmp_path / "elsewhere")
    report = verify_path(elsewhere, folder, offline=False)
    assert report.exit_code == 3
    check = report.networks["local"]["after"]
    assert (check.status, check.reason) == (
        "unreachable",
        "the local anchor file is not on this machine",
    )
    vkey = (folder / "ledger.vkey").read_text().strip()
    assert any(vkey in line for line in report.not_checked)
    with pytest.raises(InputError, match="not a bundle"):
        verify_path(elsewhere, tmp_path)


def test_a_vanished_local_file_is_a_failure_where_it_was_written(settings: Settings) -> None:
    assert settings.blockchain.local is not None
    settings.blockchain.local.path.unlink()
    assert verify_run(settings, "latest").exit_code == 1


def test_a_network_that_cannot_be_set_up_stops_no_other(settings: Settings) -> None:
    chain = replace(settings.blockchain, networks=("ethereum", "local"))
    report = verify_run(replace(settings, blockchain=chain), "latest")
    assert report.outcome == "verified"
    disabled = replace(settings.blockchain, enabled=False)
    report = verify_run(replace(settings, blockchain=disabled), "latest")
    assert report.networks["local"]["after"].status == "not configured"


def test_without_the_ledgers_key_heads_stay_unchecked(settings: Settings) -> None:
    shutil.move(settings.base_dir / "ledger.key", settings.base_dir / "elsewhere.key")
    report = verify_run(settings, "latest", offline=True)
    assert report.exit_code == 3
    assert not (settings.base_dir / "ledger.key").exists()
