"""``provenance run`` and ``provenance identity``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from provenance.capture.keys import load_run_keys, read_key_file
from provenance.cli import main
from provenance.formats.producers.certificate import open_identity
from tests.support.paths import ROOT

SHOW = "import os, sys; print(os.getpid(), *(os.environ.get(n, '-') for n in sys.argv[1:]))"
NAMES = ("PROVENANCE_RUN_ID", "PROVENANCE_RUN_SEED", "PROVENANCE_RUN_KEY_FILE")
pytestmark = pytest.mark.slow


def start(*arguments: str, **env: str) -> subprocess.Popen[str]:
    quiet = {name: value for name, value in os.environ.items() if name not in NAMES}
    return subprocess.Popen(
        [sys.executable, "-m", "provenance.cli", "run", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=quiet | env,
    )  # fmt: skip


def test_the_command_gets_the_run_and_is_this_very_process() -> None:
    process = start("--", sys.executable, "-c", SHOW, *NAMES)
    text, told = process.communicate(timeout=60)
    pid, run, seed, key_file = text.split()
    assert (int(pid), len(seed), key_file) == (process.pid, 64, "-")
    assert told == f"run {run}\n"


def test_its_exit_code_and_signals_are_the_commands() -> None:
    assert start("--", "sh", "-c", "exit 7").wait(60) == 7
    process = start("--", sys.executable, "-c", "print(1, flush=True); import time; time.sleep(60)")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM
    process.communicate()


def test_what_is_inherited_is_kept() -> None:
    env = {"PROVENANCE_RUN_ID": "id", "PROVENANCE_RUN_SEED": "seed"}
    text, told = start("--", sys.executable, "-c", SHOW, *NAMES, **env).communicate(timeout=60)
    assert (text.split()[1:], told) == (["id", "seed", "-"], "")


def test_hosts_that_share_a_key_file_write_one_run(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "run.key"
    both = [start("--key-file", str(path), "--", sys.executable, "-c", SHOW, *NAMES) for _ in "ab"]
    said = [process.communicate(timeout=60)[0].split()[1:] for process in both]
    assert said == [["-", "-", str(path)]] * 2
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key_file(path).run.version == 8


def test_ranks_that_would_each_start_a_run_are_refused(tmp_path: Path) -> None:
    ranks = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}
    process = start("--", "true", **ranks)
    assert "rank 1 of 2" in process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert start("--key-file", str(tmp_path / "run.key"), "--", "true", **ranks).wait(60) == 0
    both = start("--key-file", str(tmp_path / "run.key"), "--", "true", PROVENANCE_RUN_SEED="5ec")
    assert "expected one of the two" in both.communicate(timeout=60)[1]


def test_the_variables_are_made_ahead_for_containers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.env"
    assert main(["run", "--make-env", str(path)]) == 0
    run = capsys.readouterr().out.strip()
    told = dict(line.split("=") for line in path.read_text().splitlines())
    assert told.keys() == {"PROVENANCE_RUN_ID", "PROVENANCE_RUN_SEED"}
    assert told["PROVENANCE_RUN_ID"] == run
    assert path.stat().st_mode & 0o777 == 0o600
    assert main(["run", "--make-env", str(path)]) == 2
    capsys.readouterr()
    assert main(["run", "--make-env", "."]) == 2
    expected = "provenance: .: cannot be written: is a folder, expected a file's name\n"
    assert capsys.readouterr().err == expected


def test_an_identity_signs_key_files_made_on_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["identity", "--new", str(tmp_path / "team.key")]) == 0
    monkeypatch.setenv("PROVENANCE_IDENTITY_KEY_FILE", str(tmp_path / "team.key"))
    assert main(["run", "--make", str(tmp_path / "run.key")]) == 0
    keys = load_run_keys(tmp_path)
    assert keys.identity is not None
    assert open_identity(keys.identity, keys.run, keys.public_key)


def test_a_key_file_made_ahead_asks_the_shippers_to_sign_by_sigstore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVENANCE_IDENTITY_SIGSTORE", "1")
    assert main(["run", "--make", str(tmp_path / "run.key")]) == 0
    assert load_run_keys(tmp_path).sigstore == ""


def test_a_key_file_is_made_ahead_and_never_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.key"
    assert main(["run", "--make", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == str(load_run_keys(tmp_path).run)
    assert main(["run", "--make", str(path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["run"]) == 2
    assert main(["run", "--make", str(path), "--", "true"]) == 2
    assert main(["run", "no-such-command"]) == 2
    assert "cannot be started" in capsys.readouterr().err


def test_an_identity_is_made_once_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "team.key"
    assert main(["identity", str(path)]) == 2
    assert "identity_key_file" in capsys.readouterr().err
    assert main(["identity", "--new", str(path)]) == 0
    public = capsys.readouterr().out.strip()
    assert len(bytes.fromhex(public)) == 32
    assert path.read_text().strip() not in public
    assert main(["identity", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["public_key"] == public
    assert main(["identity", "--new", str(path)]) == 2
