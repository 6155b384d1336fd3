"""Runs that leave the database for the archive, on real databases and real files.

Over 400 lines: each damage of a file, and all who read it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from starlette.testclient import TestClient

from provenance import archiving, cli
from provenance.app.fsck import fsck
from provenance.archiving import archive_next, archive_run, restore_run
from provenance.bootstrap import sending
from provenance.bundle.archive import Archive
from provenance.dashboard.server import application
from provenance.dashboard.tokens import TokenFile
from provenance.errors import ConfigError, InputError, IntegrityError, UnknownRunError
from provenance.evidence.from_database import from_store
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.record import Kind
from provenance.fsck.findings import FindingKind as F
from provenance.ports.store import LedgerStore
from provenance.ports.values import Work
from provenance.settings import Settings, load
from provenance.settings.values import VerificationSettings
from provenance.stores.sql.store import SqlTx
from provenance.watch.again import verify_next
from tests.benchmarks.worlds import local_world
from tests.support.runs import run_of
from tests.support.verify_world import KEY, OTHER, RUN, World, before, metrics, story

EVENTS = len(story())


@dataclass
class Deployed:
    """Two finished runs, final on the local network, and an archive that is empty."""

    folder: Path
    world: World
    settings: Settings

    @property
    def store(self) -> LedgerStore:
        return self.world.store

    def archive(self, run: UUID = RUN) -> Path:
        """Move a run's records; the file."""
        row = archive_run(self.settings, self.store, run, 7.0)
        return Archive(self.folder / "archive").path(row.digest)

    def evidence(self, run: UUID = RUN) -> RunEvidence:
        return from_store(self.store, run, None)

    def rows(self) -> Any:
        """What the database has of records, but for when it was written."""
        columns = "run, producer, seq, kind, epoch, rank, ts, digest, data, chain"
        with self.world.store.exclusive() as connection:
            query = f"SELECT {columns} FROM records ORDER BY run, producer, seq"
            return connection.exec_driver_sql(query).all()

    def findings(self) -> list[str]:
        return [str(each.kind) for each in fsck(self.settings, offline=True).findings]

    def provenance(self, *words: str) -> int:
        config, base = str(self.folder / "config.json"), str(self.settings.base_dir)
        return cli.main([*words, "--config", config, "--base-dir", base])


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployed]]:
    made: list[Deployed] = []

    def deployed(url: str | None = None) -> Deployed:
        config: dict[str, Any] = {"archive": {"folder": str(tmp_path / "archive"), "after": 3600}}
        config |= {} if url is None else {"database_url": url}
        (tmp_path / "config.json").write_text(json.dumps(config))
        world, settings = local_world(tmp_path, str(tmp_path / "config.json"))
        for run in (RUN, OTHER):
            world.ingest(world.batch(story(), run=run))
        world.anchor()
        made.append(Deployed(tmp_path, world, settings))
        return made[-1]

    yield deployed
    for each in made:
        each.store.close()


@pytest.fixture
def deployed(deploy: Callable[..., Deployed]) -> Deployed:
    return deploy()


@pytest.fixture(params=["sqlite", "postgresql"])
def anywhere(request: pytest.FixtureRequest, deploy: Callable[..., Deployed]) -> Deployed:
    on_file = request.param == "sqlite"
    return deploy(None if on_file else request.getfixturevalue("postgres_url"))


@pytest.mark.slow
def test_an_archived_run_is_what_it_was_and_comes_back_as_it_was(
    anywhere: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed = anywhere
    assert deployed.provenance("status", str(RUN), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    evidence, rows = deployed.evidence(), deployed.rows()
    file = deployed.archive()
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(deployed.rows()) == EVENTS, "the other run's"
    assert deployed.evidence() == evidence
    assert deployed.findings() == []
    assert deployed.provenance("verify", str(RUN)) == 0
    capsys.readouterr()
    assert deployed.provenance("status", str(RUN), "--json") == 0
    assert json.loads(capsys.readouterr().out) == told | {"archived": file.stem}
    app = application(deployed.settings, TokenFile(deployed.folder / "tokens.json"))
    with TestClient(app, base_url="http://127.0.0.1") as browser:
        assert f"<code>{file.stem[:16]}....zip</code>" in browser.get(f"/runs/{RUN}").text
        assert browser.get(f"/api/v1/runs/{OTHER}").json()["archived"] is None
    with deployed.store.snapshot() as tx:
        row = tx.archived(RUN)
        assert row is not None
        assert (row.records, row.size, row.archived_at) == (EVENTS, file.stat().st_size, 7.0)
    assert deployed.archive() == file, "once"
    assert restore_run(deployed.settings, deployed.store, RUN, 9.0) == EVENTS
    assert deployed.rows() == rows
    assert deployed.findings() == []
    with pytest.raises(UnknownRunError, match="is not archived"):
        restore_run(deployed.settings, deployed.store, RUN, 9.0)


def killed(deployed: Deployed, at: tuple[Any, str, bool]) -> None:
    """Archive the run in a process that ends at a step: before the call, or behind it."""
    where, name, behind = at
    deployed.store.close()
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        return
    try:
        real = getattr(where, name)

        def last(*arguments: Any, **options: Any) -> None:
            if behind:
                real(*arguments, **options)
            os._exit(9)

        setattr(where, name, last)
        with closing(sending.open_store(deployed.settings)) as store:
            archive_run(deployed.settings, store, RUN, 7.0)
    finally:
        os._exit(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "at",
    [
        (os, "replace", False),
        (os, "replace", True),
        (archiving, "verify_path", True),
        (SqlTx, "archive_run", False),
        (SqlTx, "archive_run", True),
    ],
    ids=["written", "named", "read back", "compared", "deleted"],
)
def test_a_kill_leaves_the_run_where_it_was(deployed: Deployed, at: tuple[Any, str, bool]) -> None:
    evidence, rows = deployed.evidence(), deployed.rows()
    killed(deployed, at)
    assert deployed.rows() == rows
    assert deployed.evidence() == evidence
    assert deployed.findings() == []
    deployed.archive()
    assert deployed.evidence() == evidence
    assert deployed.findings() == []


def exchange(file: Path, deployed: Deployed) -> None:
    file.write_bytes(deployed.archive(OTHER).read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda file, _: file.unlink(), "cannot be read: No such file or directory"),
        (lambda file, _: os.truncate(file, 100), "of 100 bytes"),
        (exchange, "found SHA-256 "),
    ],
    ids=["missing", "truncated", "exchanged"],
)
def test_a_file_that_is_not_the_one_that_was_written_is_named_by_every_reader(
    damage: Callable[[Path, Deployed], None],
    found: str,
    deployed: Deployed,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = deployed.archive()
    damage(file, deployed)
    for words in (
        ("verify", str(RUN)),
        ("report", str(RUN)),
        ("bundle", str(RUN), "-o", str(deployed.folder / "out.zip")),
        ("status", str(RUN)),
        ("statement", str(RUN)),
        ("archive", "--restore", str(RUN)),
    ):
        assert deployed.provenance(*words) == 1, words
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"provenance: run {RUN}: archive file {file}: ")
        assert found in line
        assert f"expected SHA-256 {file.stem}" in line
    app = application(deployed.settings, TokenFile(deployed.folder / "tokens.json"))
    with TestClient(app, base_url="http://127.0.0.1") as browser:
        for path in (f"/runs/{RUN}", f"/api/v1/runs/{RUN}/bundle"):
            answer = browser.get(path)
            assert answer.status_code == 500
            assert "evidence that is asked for cannot be read" in answer.text
            assert str(deployed.folder) not in answer.text
            assert file.stem not in answer.text
            assert f"archive file {file}: " in caplog.messages[-1]
        assert browser.get(f"/runs/{OTHER}").status_code == 200
    assert deployed.provenance("verify", "--all", "--json") == 1
    assert '"verified": 1' in capsys.readouterr().out
    report = fsck(deployed.settings, offline=True)
    assert [each.kind for each in report.findings] == [F.ARCHIVE]
    assert str(file) in report.findings[0].detail
    without = msgspec.structs.replace(deployed.settings, archive=None)
    kinds = {each.kind for each in fsck(without, offline=True).findings}
    assert kinds == {F.ARCHIVE}, "a deployment that names no archive"


def test_a_bundle_that_withholds_records_is_no_archive_file(
    deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    out = deployed.folder / "out.zip"
    assert deployed.provenance("bundle", str(RUN), "--disclose", "metrics", "-o", str(out)) == 0
    deployed.archive()
    data = out.read_bytes()
    digest = hashlib.sha256(data).digest()
    deployed.world.sql("UPDATE archived_runs SET digest = ?, size = ?", digest, len(data))
    path = Archive(deployed.folder / "archive").path(digest)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    capsys.readouterr()
    assert deployed.provenance("archive", "--restore", str(RUN)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"archive file {path}: has {EVENTS} records of run {RUN}, " in line
    assert " without content, expected " in line
    with deployed.store.snapshot() as tx:
        assert tx.archived(RUN) is not None
    assert len(deployed.rows()) == EVENTS, "the other run's"


@pytest.mark.slow
@pytest.mark.parametrize("configured", [True, False])
def test_a_child_is_as_it_was_where_its_parents_file_is_gone(
    configured: bool, deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {"parent": {"run": str(RUN), "epoch": None}}
    events = [(k, at, f | named if k is Kind.CONFIG else f) for k, at, f in story()]
    child, world = run_of(0x01890A5E0000, KEY), deployed.world
    world.ingest(world.batch(events, run=child))
    world.anchor()
    file = deployed.archive()
    every = VerificationSettings(86400.0)
    settings = msgspec.structs.replace(deployed.settings, verification=every)
    with deployed.store.transaction() as tx:
        tx.add_work_of_sealed(Work.VERIFICATION, 86400.0, 4e9)
    if configured:
        file.unlink()
    else:
        settings = msgspec.structs.replace(settings, archive=None)
        (deployed.folder / "config.json").write_text("{}")
    out = str(deployed.folder / "out.zip")
    assert deployed.provenance("bundle", str(child), "-o", out) == 0
    assert deployed.provenance("report", str(child)) == 0
    capsys.readouterr()
    assert deployed.provenance("verify", str(child), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    line = f"says that it continues run {RUN}; not checked: its records cannot be read; "
    assert report["parent"]["line"] == f"{line}see: provenance verify {RUN}"
    assert report["parent"]["matches"] is None
    with closing(sending.open_store(settings)) as store:
        looks = iter(
            lambda: verify_next(settings, store, sending.seal_policy(settings), lambda: 4e9), None
        )
        after = {look.run: look.after for look in looks}
    assert after == {RUN: "failed", OTHER: "verified", child: "verified"}


@pytest.mark.slow
def test_doctor_counts_the_archive_and_names_what_is_missing(
    deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    def told() -> tuple[bool, str]:
        capsys.readouterr()
        deployed.provenance("doctor", "--json")
        findings = json.loads(capsys.readouterr().out)["findings"]
        (found,) = (each for each in findings if each["name"] == "archive")
        return found["works"], found["detail"]

    folder = deployed.folder / "archive"
    assert told() == (True, f"{folder}: none yet")
    files = [deployed.archive(run) for run in (RUN, OTHER)]
    assert told() == (True, f"{folder}: can be read; archived runs: 2, all files are there")
    os.truncate(files[0], 100)
    wrong = f"{folder}: archived runs: 2, files missing or of another size: "
    assert told() == (False, f"{wrong}1, first {files[0]} of run {RUN}")
    files[1].unlink()
    assert told()[1].startswith(f"{wrong}2, ")
    folder.rename(deployed.folder / "away")
    problem = "cannot be read: No such file or directory"
    assert told() == (False, f"{folder}: {problem}; archived runs: 2")
    (deployed.folder / "config.json").write_text("{}")
    assert told() == (False, "no archive.folder is configured; archived runs: 2")


def test_events_that_come_again_change_nothing_and_others_are_kept(deployed: Deployed) -> None:
    def late() -> None:
        deployed.world.ingest(
            deployed.world.batch(story()),
            deployed.world.batch([metrics(1, loss=9.0)], first=len(before())),
            deployed.world.batch([metrics(9)], first=EVENTS),
        )

    def kept() -> Any:
        with deployed.store.snapshot() as tx:
            twice = [replace(each, seen_at=0.0) for each in tx.equivocations(RUN)]
            parked = [(each.id, each.reason) for each in tx.parked(RUN)]
            return twice, parked, tx.ledger_size(), tx.producers(RUN), tx.statements(RUN)

    deployed.archive()
    rows = deployed.rows()
    late()
    twice, parked, *_ = seen = kept()
    assert len(twice) == 1
    assert [reason for _, reason in parked] == [f"metrics seq {EVENTS}: the run is sealed"]
    assert deployed.rows() == rows
    assert deployed.findings() == [F.EQUIVOCATION, F.PARKED]
    restore_run(deployed.settings, deployed.store, RUN, 9.0)
    late()
    assert kept() == seen, "as of a run that is not archived"


def test_events_for_a_run_whose_file_is_gone_hold_up_that_run_alone(deployed: Deployed) -> None:
    file = deployed.archive()
    file.rename(file.with_suffix(".away"))
    new = run_of(0x01890A5E0000, KEY)
    world = deployed.world
    world.ingest(world.batch(story()), world.batch(story(), run=new))
    with deployed.store.snapshot() as tx:
        assert tx.run(new)
        assert (tx.parked(RUN), tx.equivocations(RUN)) == ([], [])
    file.with_suffix(".away").rename(file)
    world.anchor()
    assert deployed.findings() == []


@pytest.mark.slow
def test_a_run_in_both_places_is_a_finding(deployed: Deployed) -> None:
    file = deployed.archive()
    restore_run(deployed.settings, deployed.store, RUN, 9.0)
    row = (RUN.hex, bytes.fromhex(file.stem), file.stat().st_size, EVENTS, 7.0)
    deployed.world.sql("INSERT INTO archived_runs VALUES (?, ?, ?, ?, ?)", *row)
    assert deployed.findings() == [F.ARCHIVE]
    assert deployed.provenance("verify", str(RUN)) == 0, "the file counts"


@pytest.mark.slow
def test_what_is_not_done_or_does_not_hold_stays(deploy: Callable[..., Deployed]) -> None:
    deployed = deploy()
    world = deployed.world
    with pytest.raises(UnknownRunError):
        deployed.archive(UUID(int=5))
    world.sql("UPDATE anchors SET state = 'confirmed'")
    with pytest.raises(InputError, match="is not final yet"):
        deployed.archive(OTHER)
    world.sql("UPDATE anchors SET state = 'final'")
    world.sql("UPDATE runs SET state = 'open' WHERE run = ?", OTHER.hex)
    with pytest.raises(InputError, match="is open, expected a sealed one"):
        deployed.archive(OTHER)
    world.sql("UPDATE records SET data = ? WHERE run = ? AND seq = 7", b"{}", RUN.hex)
    with pytest.raises(IntegrityError, match=r"stays in the database: \(1\)"):
        deployed.archive()
    assert len(deployed.rows()) == 2 * EVENTS
    assert list((deployed.folder / "archive").rglob("*.zip")) == []


def test_the_section_is_read_strictly(tmp_path: Path) -> None:
    assert load(None, tmp_path).archive is None
    for section, problem in (
        ({}, "archive.folder: missing, expected the path of a file"),
        ({"folder": "x", "after": 1}, "archive.after: found 1, expected seconds from 60"),
        ("x", 'archive: found "x", expected an object'),
    ):
        with pytest.raises(ConfigError, match=problem):
            load({"archive": section}, tmp_path)


@pytest.mark.slow
def test_what_is_old_is_archived_by_itself_and_what_was_restored_left_alone(
    deployed: Deployed,
) -> None:
    sealed = deployed.evidence().sealed_at
    assert sealed is not None
    due = sealed + 3600

    def archived(now: float) -> list[tuple[UUID, Any]]:
        with deployed.store.transaction() as tx:
            tx.add_work_of_sealed(Work.ARCHIVE, 3600, now)
        again = iter(lambda: archive_next(deployed.settings, deployed.store, lambda: now), None)
        return list(again)

    assert archived(due - 1) == []
    assert {run for run, _ in archived(due)} == {RUN, OTHER}
    assert deployed.rows() == []
    assert archived(due) == []
    restore_run(deployed.settings, deployed.store, RUN, due)
    assert archived(due + 3599) == []
    deployed.world.sql("UPDATE records SET data = ? WHERE seq = 7", b"{}")
    ((run, problem),) = archived(due + 3600)
    assert run == RUN
    assert "stays in the database: (1)" in problem
    assert archived(due + 3601) == [], "not at once"
    assert [run for run, _ in archived(due + 7200)] == [RUN]


@pytest.mark.slow
def test_the_command_moves_what_is_old_and_gives_the_space_back(
    anywhere: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed = anywhere

    def told(*words: str, code: int = 0) -> Any:
        assert deployed.provenance("archive", *words, "--json") == code
        return json.loads(capsys.readouterr().out)

    assert told("--older-than", "99999d")["archived"] == {}
    moved = told("--older-than", "0s", "--vacuum")
    assert set(moved["archived"]) == {str(RUN), str(OTHER)}
    assert moved["freed"] > 0
    assert told("--restore", str(RUN))["restored"] == {str(RUN): {"records": EVENTS}}
    assert set(told(str(RUN))["archived"]) == {str(RUN)}
    assert told("--restore", code=2)["error"].startswith("--restore: found no run")
