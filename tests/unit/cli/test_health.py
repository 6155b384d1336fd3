"""``provenance health``: how old the marks of each queue may be, and what is said of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from redis import Redis
from sqlalchemy import create_engine, make_url, text

from provenance import cli
from provenance.app import health as marks
from provenance.bootstrap import sending
from provenance.settings import load
from provenance.stores.sql.engine import parse_url

QUEUES = ["hashing", "anchor.local", "confirm", "verify", "beat"]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base directory with a fresh mark of every queue."""
    monkeypatch.delenv("PROVENANCE_ALIVE_DIR", raising=False)
    (tmp_path / "run").mkdir()
    for queue in QUEUES:
        mark(tmp_path / "run", queue, 0)
    return tmp_path


def mark(folder: Path, queue: str, age_s: float) -> None:
    path = folder / f"{queue}.alive"
    path.touch()
    os.utime(path, (time.time() - age_s,) * 2)


def health(base: Path, *arguments: str) -> int:
    return cli.main(["health", *arguments, "--base-dir", str(base)])


def test_fresh_queues(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert health(base, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["fresh"], told["limit_s"]) == (True, 165.0)
    assert [queue["queue"] for queue in told["queues"]] == QUEUES
    assert all(queue["fresh"] and queue["age_s"] < 60 for queue in told["queues"])


def test_a_stale_queue_is_named_with_its_age(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark(base / "run", "anchor.local", 170)
    assert health(base) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("stale (limit 165 s): anchor.local: the last task ended 17")
    assert "hashing" not in line
    assert health(base, "hashing", "beat") == 0
    capsys.readouterr()
    assert health(base, "anchor.local", "--json") == 1
    assert not json.loads(capsys.readouterr().out)["fresh"]


def test_a_queue_of_which_no_task_ever_ended_is_stale(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (base / "run" / "hashing.alive").unlink()
    assert health(base, "hashing") == 1
    assert capsys.readouterr().out == "stale (limit 165 s): hashing: no task has ended yet\n"


def test_the_limit_follows_the_sweep_s_interval(base: Path) -> None:
    mark(base / "run", "hashing", 170)
    config = base / "config.json"
    config.write_text(json.dumps({"sweep_interval": 60}))
    assert health(base, "hashing") == 1
    assert health(base, "hashing", "--config", str(config)) == 0


def test_marks_lie_where_the_environment_says(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVENANCE_ALIVE_DIR", str(tmp_path))
    assert health(base, "hashing") == 1
    mark(tmp_path, "hashing", 0)
    assert health(base, "hashing") == 0


def test_an_unknown_queue_is_one_line(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert health(base, "anchor.ethereum") == 2
    assert capsys.readouterr().err == (
        "provenance: QUEUE: found 'anchor.ethereum', expected one of hashing, anchor.local, "
        "confirm, verify, beat, shipper\n"
    )


def test_why_a_queue_cannot_work_is_told(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load(None, base)
    marks.note_problem(settings, "confirm", "database ledger.db: database or disk is full")
    assert health(base) == 1
    line = "failing: confirm: database ledger.db: database or disk is full\n"
    assert capsys.readouterr().out == line
    assert health(base, "confirm") == 1
    assert health(base, "hashing") == 0
    assert cli.main(["doctor", "--base-dir", str(base)]) == 3
    marks.note_problem(settings, "confirm", None)
    assert health(base) == 0


@pytest.mark.slow
def test_a_database_that_takes_no_commit_is_told(
    base: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sending.open_store(replace(load(None, base), database_url=postgres_url)).close()
    name = make_url(postgres_url).database
    config = base / "config.json"
    config.write_text(json.dumps({"database_url": postgres_url}))
    doctor = ["doctor", "--json", "--base-dir", str(base), "--config", str(config)]
    assert health(base, "--config", str(config)) == 1
    assert capsys.readouterr().out == "failing: no sweep has committed yet\n"
    alter(postgres_url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    assert health(base, "--config", str(config)) == 1
    assert "read-only transaction" in capsys.readouterr().out
    assert cli.main(doctor) == 3
    findings = json.loads(capsys.readouterr().out)["findings"]
    (ledger,) = [found for found in findings if found["name"] == "ledger"]
    assert not ledger["works"]
    assert "read-only transaction" in ledger["detail"]


@pytest.mark.slow
@pytest.mark.nodes
def test_doctor_fails_on_what_health_fails_on(
    base: Path, redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVENANCE_REDIS_URL", redis_url)
    problem = "shard 3: the oldest of 1 batches waits for "
    with Redis.from_url(redis_url) as client:
        client.delete("prov:events:3")
        client.xadd("prov:events:3", {"b": "x"}, id="1-1")
        try:
            assert health(base) == 1
            said = capsys.readouterr().out
            code = cli.main(["doctor", "--json", "--base-dir", str(base)])
        finally:
            client.delete("prov:events:3")
    assert problem in said
    findings = json.loads(capsys.readouterr().out)["findings"]
    (work,) = [found for found in findings if found["kind"] == "work"]
    assert code == 3
    assert work["detail"].startswith(problem)
    assert "hashing" in work["mend"]


@pytest.mark.slow
def test_a_fleet_that_has_not_swept_yet_is_told_and_no_fault(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sending.open_store(load(None, base)).close()
    cli.main(["doctor", "--json", "--base-dir", str(base)])
    findings = json.loads(capsys.readouterr().out)["findings"]
    (work,) = [found for found in findings if found["kind"] == "work"]
    assert (work["detail"], work["needed"]) == ("no sweep has committed yet", False)


def test_a_server_that_is_away_is_no_damaged_history(
    base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(None, base)
    sending.ledger_signer(settings)
    sending.open_store(settings).close()
    monkeypatch.setenv("PROVENANCE_REDIS_URL", "redis://127.0.0.1:1/0")
    assert cli.main(["doctor", "--json", "--base-dir", str(base)]) == 3
    findings = {found["name"]: found for found in json.loads(capsys.readouterr().out)["findings"]}
    history = findings["history"]
    assert history["detail"].startswith("not checked: Redis at 127.0.0.1:1/0: ")
    assert (history["needed"], history["mend"]) == (False, None)
    assert not findings["redis"]["works"]
    assert findings["gets on"]["detail"] == "no sweep has committed yet", "Redis is told once"


def alter(url: str, statement: str) -> None:
    engine = create_engine(parse_url(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.mark.slow
def test_folders_that_take_nothing_are_told(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By a limit on the size of files, which stops root too."""
    (base / "spool").mkdir()
    code = (
        "import resource, sys; from provenance import cli;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        f"sys.exit(cli.main(['doctor', '--json', '--base-dir', {str(base)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    findings = json.loads(done.stdout)["findings"]
    folders = {found["name"]: found for found in findings if found["kind"] == "folder"}
    assert folders.keys() == {"base_dir", "spool"}
    assert not any(found["works"] for found in folders.values())
    assert "cannot be written: File too large" in folders["spool"]["detail"]
    assert done.returncode == 3
    assert sorted(path.name for path in (base / "spool").iterdir()) == []


def test_doctor_shows_the_ages(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark(base / "run", "confirm", 1000)
    (base / "run" / "verify.alive").unlink()
    assert cli.main(["doctor", "--json", "--base-dir", str(base)]) == 3
    findings = json.loads(capsys.readouterr().out)["findings"]
    queues = {found["name"]: found["works"] for found in findings if found["kind"] == "queue"}
    assert queues == {"hashing": True, "anchor.local": True, "confirm": False, "beat": True}
