"""The commands of docs/backup.md, as they stand there, on a deployment that works."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from provenance import cli
from tests.integration.fleet.test_up import is_final, train, until, up
from tests.support.paths import ROOT
from tests.support.runs import run_of
from tests.support.verify_world import KEY, story

PAGE = (ROOT / "docs" / "backup.md").read_text()
pytestmark = pytest.mark.nodes


def blocks(section: str) -> list[str]:
    """The commands of a section, block by block."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run(script: str, folder: Path, **variables: str) -> str:
    """In bash, where every command must succeed; what it prints."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=folder,
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("engine", ["SQLite", "PostgreSQL"])
def test_what_was_backed_up_while_all_ran_is_there_after_the_restore(
    engine: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    variables = {"BACKUP": str(tmp_path / "kept")}
    if engine == "PostgreSQL":
        url = request.getfixturevalue("postgres_url")
        restored = url.replace("/test_", "/restored_")
        variables |= {"PROVENANCE_DATABASE_URL": url, "NEW_DATABASE_URL": restored}
        monkeypatch.setenv("PROVENANCE_DATABASE_URL", url)
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "artifacts"
    secrets = ("openings/run.jsonl", "items/run/train.key", "items/run/train.digests")
    for name in secrets:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text("before\n")
    first = train(base)
    with up(base):
        assert until(lambda: is_final(base, first))
        later = train(base)
        run(blocks(engine)[0], tmp_path, **variables)
        assert until(lambda: is_final(base, later))
    (base / "openings" / "run.jsonl").write_text("since\n")  # kept, as the spool is
    shutil.rmtree(base / "items")
    assert cli.main(["report", later]) == cli.main(["report", first]) == 0
    if engine == "PostgreSQL":
        name = restored.rpartition("/")[2]
        run(f'psql -qc "CREATE DATABASE {name}" "$PROVENANCE_DATABASE_URL"', tmp_path, **variables)
        monkeypatch.setenv("PROVENANCE_DATABASE_URL", restored)
    run(blocks(engine)[1], tmp_path, **variables)
    if engine == "PostgreSQL":
        variables["PROVENANCE_DATABASE_URL"] = restored
    assert (base / "ledger.key").stat().st_mode & 0o777 == 0o600
    assert [(base / name).read_text() for name in secrets] == ["since\n", *["before\n"] * 2]
    assert {p.stat().st_mode & 0o77 for p in (tmp_path / "kept").rglob("items/**/*")} == {0}
    assert cli.main(["ledger", "head"]) == 1
    run(blocks("After a restore")[0], tmp_path, **variables)
    assert cli.main(["ledger", "head"]) == 0
    for known in (first, later):
        capsys.readouterr()
        assert cli.main(["verify", known, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["outcome"] == "verified"
    if engine == "PostgreSQL":
        run(f'psql -qc "DROP DATABASE {name}" "{url}"', tmp_path)


def test_an_archive_is_copied_beside_the_database_and_restored_with_it(tmp_path: Path) -> None:
    """And where the database is lost with every copy, the archive's files bring it back."""
    from tests.benchmarks.worlds import FIRST, local_world

    base, archive = tmp_path / "artifacts", tmp_path / "archive"
    (tmp_path / "config.json").write_text(json.dumps({"archive": {"folder": str(archive)}}))
    world, _ = local_world(tmp_path, str(tmp_path / "config.json"))
    for at in range(3):
        world.ingest(world.batch(story(2), run=run_of(FIRST + at, KEY)))
    world.anchor()
    world.store.close()
    variables = {
        "PROVENANCE_CONFIG": str(tmp_path / "config.json"),
        "BACKUP": str(tmp_path / "kept"),
        "ARCHIVE": str(archive),
        "ARCHIVE_COPY": str(tmp_path / "copy"),
    }
    run("provenance archive --older-than 0s", tmp_path, **variables)
    said = run(blocks("The archive")[0], tmp_path, **variables)
    assert f"the archive is not among them: copy {archive} now" in said
    base.rename(tmp_path / "lost")
    shutil.rmtree(archive)
    shutil.copytree(tmp_path / "kept", base)
    (tmp_path / "copy").rename(archive)
    run("provenance ledger confirm", tmp_path, **variables)
    checked = "provenance verify --all; provenance fsck --offline"
    assert "3 verified" in run(checked, tmp_path, **variables)
    (base / "ledger.db").unlink()
    (base / "spool").mkdir()
    shutil.copy(tmp_path / "lost" / "ledger.key.head", base)
    run(f"provenance ledger recover {archive}/*/*.zip", tmp_path, **variables)
    assert "3 verified" in run(checked, tmp_path, **variables)


def test_the_upgrade_s_commands_run(tmp_path: Path) -> None:
    from tests.benchmarks.worlds import database

    database(tmp_path, 1, 1)
    kept = str(tmp_path / "kept")
    said = run(f'provenance backup "$BACKUP"\n{blocks("Upgrade")[0]}', tmp_path, BACKUP=kept)
    assert "ledger.db, ledger.key, anchors.jsonl" in said
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "kept").iterdir()} == {0o600}


def test_a_backup_replaces_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.benchmarks.worlds import database

    base = ["--base-dir", str(database(tmp_path, 1, 1).base_dir)]
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "yesterday").touch()
    assert cli.main(["backup", str(tmp_path / "kept"), *base]) == 2
    assert "something is there, expected a new or an empty folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["yesterday"]
