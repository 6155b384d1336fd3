"""The commands of docs/backup.md, as they stand there, on a deployment that works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from provenance import cli
from tests.integration.fleet.test_up import is_final, train, until, up
from tests.support.paths import ROOT

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
    first = train(base)
    with up(base):
        assert until(lambda: is_final(base, first))
        later = train(base)
        run(blocks(engine)[0], tmp_path, **variables)
        assert until(lambda: is_final(base, later))
    assert cli.main(["report", later]) == cli.main(["report", first]) == 0
    if engine == "PostgreSQL":
        name = restored.rpartition("/")[2]
        run(f'psql -qc "CREATE DATABASE {name}" "$PROVENANCE_DATABASE_URL"', tmp_path, **variables)
        monkeypatch.setenv("PROVENANCE_DATABASE_URL", restored)
    run(blocks(engine)[1], tmp_path, **variables)
    assert (base / "ledger.key").stat().st_mode & 0o777 == 0o600
    assert cli.main(["ledger", "head"]) == 1
    run(blocks("After a restore")[0], tmp_path, **variables)
    assert cli.main(["ledger", "head"]) == 0
    for known in (first, later):
        capsys.readouterr()
        assert cli.main(["verify", known, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["outcome"] == "verified"
    if engine == "PostgreSQL":
        drop = f'psql -qc "DROP DATABASE {name}" "$PROVENANCE_DATABASE_URL"'
        run(drop, tmp_path, **variables)


def test_the_upgrade_s_commands_run(tmp_path: Path) -> None:
    from tests.benchmarks.worlds import database

    database(tmp_path, 1, 1)
    said = run(blocks("Upgrade")[0], tmp_path, BACKUP=str(tmp_path / "kept"))
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
