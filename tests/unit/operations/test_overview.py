"""``provenance status`` of a deployment: what an operator reads first, at any number of runs.

Over 400 lines: one deployment, and all that is said of it.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from provenance import cli
from provenance.bootstrap import sending
from provenance.operations import words
from provenance.operations.overview import overview
from provenance.ports.listing import RunSummary, Wanted
from provenance.ports.values import AnchorState, NetworkRow, Work
from provenance.settings import Settings, load
from provenance.stores.sql import schema
from provenance.stores.sql.session import fields_of
from tests.benchmarks.worlds import database, local_world
from tests.support.runs import run_of
from tests.support.verify_world import KEY, RUN, World, story

pytestmark = pytest.mark.slow

RUNS = 10_000
NOW = 1_800_000_000.0


def settings_at(tmp_path: Path, url: str | None) -> Settings:
    """A deployment of one run, its database where the URL says."""
    if url is not None:
        (tmp_path / "artifacts").mkdir()
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"database_url": url}))
        settings = load(config, tmp_path / "artifacts")
    else:
        settings = load(None, tmp_path / "artifacts")
    world: Any = World(names=())
    world.store.close()
    world.store = sending.open_store(settings)
    world.policy = sending.seal_policy(settings)
    world.networks = sending.open_networks(settings)
    world.ingest(world.batch(story(1)))
    world.anchor()
    world.store.close()
    return settings


def many(settings: Settings, number: int) -> None:
    """As many runs more, each with its roots in the ledger, which no network has."""
    store: Any = sending.open_store(settings)
    with store.exclusive() as connection:
        size = len(connection.execute(schema.ledger_entries.select()).all())
        runs, summaries, entries = [], [], []
        for at in range(number):
            run = uuid.UUID(int=at << 64)
            state = ("running", "finished", "failed")[at % 3]
            runs.append(
                {"run": run, "public_key": bytes(32), "state": "sealed", "created_at": NOW - at,
                 "last_ingest": NOW - at}
            )  # fmt: skip
            summaries.append(fields_of(RunSummary(run, f"job {at}", tags=("a", f"n{at % 7}"))))
            summaries[-1]["state"] = state
            entries.append(
                {"index": size + at, "run": run, "phase": "before", "epoch": -1, "root": bytes(32),
                 "anchor": True, "created_at": NOW - at}
            )  # fmt: skip
        connection.execute(schema.runs.insert(), runs)
        connection.execute(schema.summaries.insert(), summaries)
        connection.execute(schema.ledger_entries.insert(), entries)
    store.close()


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is asked of databases that are opened from now on."""
    from sqlalchemy.engine import Engine

    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield asked
    event.remove(Engine, "before_cursor_execute", note)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_ten_thousand_runs_take_as_many_queries_as_one(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest, queries: list[str]
) -> None:
    url = request.getfixturevalue("postgres_url") if engine == "postgresql" else None
    settings = settings_at(tmp_path, url)
    asked: dict[int, set[int]] = {}
    for number in (1, RUNS + 1):
        if number > 1:
            many(settings, RUNS)
        for filters in (
            {},
            {"state": "failed", "name": "JOB", "tags": ["a", "n3"], "sort": "seen"},
            {"since": NOW - 9, "network": "local", "sort": "name"},
        ):
            queries.clear()
            seen = overview(settings, Wanted(NOW, lost_after_s=60.0, size=20, **filters))
            asked.setdefault(number, set()).add(len(queries))
            assert not [statement for statement in queries if "FROM records" in statement]
    assert max(asked[RUNS + 1]) <= max(asked[1])
    assert max(asked[1]) < 40
    assert [row.name for row in seen.runs] == [f"job {n}" for n in range(10)]
    assert seen.runs_total == 10
    whole = overview(settings, Wanted(NOW, lost_after_s=60.0, size=20))
    assert (whole.runs_total, len(whole.runs)) == (RUNS + 1, 20)
    assert whole.states == {"running": 20, "lost": 3314, "finished": 3334, "failed": 3333}
    assert (whole.roots, whole.waiting) == (RUNS + 2, RUNS)
    line = words.anchored(whole, NOW)
    assert line.startswith("anchored: 2 of 10002 roots; 10000 not yet, the oldest for 2 h 46 min")
    found = overview(settings, Wanted(NOW, name=str(uuid.UUID(int=77 << 64)))).runs
    assert [row.name for row in found] == ["job 77"]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment of three finished runs, final on the local network."""
    return database(tmp_path_factory.mktemp("three"), 3, 1).base_dir


@pytest.fixture
def base(three: Path, tmp_path: Path) -> Path:
    """A copy of it, for one test."""
    return Path(shutil.copytree(three, tmp_path / "artifacts"))


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_the_first_line_says_whether_everything_is_anchored(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", "--base-dir", str(base)]) == 0
    assert lines_of(capsys)[0] == "anchored: all 6 roots, final on local"
    world, _ = local_world(base.parent)
    world.ingest(world.batch(story(1), run=run_of(9, KEY)))
    assert cli.main(["status", "--base-dir", str(base)]) == 0
    first = lines_of(capsys)[0]
    assert first.startswith("anchored: 6 of 8 roots; 2 not yet, the oldest for ")
    assert first.endswith(" (local 2)")
    world.store.close()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis://:sesame@127.0.0.1:1/0"])
def test_without_redis_the_runs_are_shown_and_the_reason(
    base: Path, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVENANCE_REDIS_URL", url)
    assert cli.main(["status", "--base-dir", str(base)]) == 3
    lines = lines_of(capsys)
    assert lines[0] == "anchored: the known 6 roots, final on local"
    assert lines[1].startswith("does not get on: Redis at 127.0.0.1:1/0: ")
    assert len([line for line in lines if "finished (completed)" in line]) == 3
    assert "sesame" not in str(lines)


@pytest.mark.nodes
def test_a_wrong_password_is_told_beside_the_runs(
    base: Path, redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = redis_url.rpartition("@")[2]
    monkeypatch.setenv("PROVENANCE_REDIS_URL", f"redis://nobody:sesame@{host.split('//')[-1]}")
    assert cli.main(["status", "--base-dir", str(base)]) == 3
    lines = lines_of(capsys)
    assert lines[0] == "anchored: the known 6 roots, final on local"
    assert "refuses the user or password" in lines[1]
    assert "sesame" not in str(lines)


@pytest.mark.nodes
def test_what_takes_nothing_is_told_and_not_all_is_claimed(
    base: Path, redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVENANCE_REDIS_URL", redis_url)
    status = ["status", "--base-dir", str(base)]
    with closing(sqlite3.connect(base / "ledger.db")) as connection:
        commits = "INSERT OR REPLACE INTO commits VALUES ('sweep', unixepoch())"
        connection.execute(commits)
        connection.commit()
        assert cli.main(status) == 0
        assert lines_of(capsys)[0] == "anchored: all 6 roots, final on local"
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON commits "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
        connection.commit()
    assert cli.main(status) == 3
    lines = lines_of(capsys)
    assert lines[0] == "anchored: the known 6 roots, final on local"
    assert lines[1].startswith("does not get on: database ")
    assert lines[1].endswith("database or disk is full")
    (base / "ledger.db").unlink()
    assert cli.main(status) == 3
    lines = lines_of(capsys)
    assert lines[0] == "anchored: unknown: there is no database"
    assert lines[1].endswith("there is no database, and the key signed 6 entries")
    assert not (base / "ledger.db").exists(), "a look makes nothing"


def test_a_network_that_does_not_get_on_is_named_and_is_1(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world, _ = local_world(base.parent)
    world.ingest(world.batch(story(1), run=run_of(9, KEY)))
    with world.store.transaction() as tx:
        row = tx.anchors("local", [AnchorState.DUE])[-1]
        tx.save_anchor(replace(row, reason="disk full"))
    assert cli.main(["status", "--base-dir", str(base)]) == 1
    assert "local does not get on: disk full" in lines_of(capsys)
    world.anchor()
    world.store.close()
    assert cli.main(["status", "--base-dir", str(base)]) == 0


def test_a_network_says_its_newest_head_when_it_will_be_final_and_what_it_cost(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two anchors in blocks that are 120 s and 10 blocks apart; the newer one is 4 of 12 deep. Of a
    network that is paused, or does not answer, nobody knows when."""
    config = tmp_path / "config.json"
    ethereum = {"url": "http://127.0.0.1:1", "confirmations": 12}
    config.write_text(json.dumps({"blockchain": {"networks": ["ethereum"], "ethereum": ethereum}}))
    settings = load(config, base, secrets=False)
    blocks: dict[int, dict[str, Any]] = {
        2: {"state": AnchorState.FINAL, "height": 100, "block_time": 1000.0, "depth": 14},
        6: {"state": AnchorState.CONFIRMED, "height": 110, "block_time": 1120.0, "depth": 4},
    }
    with closing(sending.open_store(settings)) as store, store.transaction() as tx:
        for size, block in blocks.items():
            row = tx.add_anchor("ethereum", size, NOW - 90)
            tx.save_anchor(replace(row, paid=3e15, **block))
    command = ["status", "--config", str(config), "--base-dir", str(base)]
    assert cli.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["networks"]["ethereum"]
    known = {"head": 6, "state": "confirmed", "final": 2, "waiting": 4, "eta_s": 96.0}
    assert {key: found[key] for key in known} == known
    assert (found["cost"], found["cost_per_run"], found["unit"]) == (6e15, 2e15, "wei")
    assert cli.main(command) == 0
    (line,) = [line for line in lines_of(capsys) if line.startswith("ethereum ")]
    assert "6 roots      in a block, 4 deep" in line
    assert re.search(r" about 1 min 36 s  4        \d+ d \d+ h +0.006 ETH  0.002 ETH", line)
    with closing(sending.open_store(settings)) as store:
        for paused, reason in (("balance: too low", None), (None, "no answer")):
            with store.transaction() as tx:
                tx.save_network(NetworkRow("ethereum", {}, paused, NOW))
                tx.save_anchor(replace(tx.anchors("ethereum")[-1], reason=reason))
            assert cli.main(command) == 1
            (line,) = [line for line in lines_of(capsys) if line.startswith("ethereum  ")]
            assert re.search(r" in a block, 4 deep  - +4 +\d+ d \d+ h ", line)


def test_a_row_of_work_that_is_damaged_is_told_and_hides_nothing_else(tmp_path: Path) -> None:
    settings = settings_at(tmp_path, None)
    with closing(sending.open_store(settings)) as store, store.transaction() as tx:
        tx.add_work(Work.ATTESTATION, RUN, 1.0, told='{"number": 1')
    seen = overview(settings, Wanted(NOW, 600.0))
    assert (len(seen.runs), seen.attestations) == (1, 1)
    assert (seen.unattested or "").startswith(f"run {RUN}: due_work.told is not JSON")


def test_status_writes_nothing(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in base.rglob("*")}
    assert cli.main(["status", "--base-dir", str(base)]) == 0
    assert {path: path.stat().st_mtime_ns for path in base.rglob("*")} == before


def test_watch_shows_it_again_and_again_until_ctrl_c(
    base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("provenance.cli.status.time.sleep", sleep)
    assert cli.main(["status", "--watch", "--json", "--base-dir", str(base)]) == 0
    shown = [json.loads(line) for line in lines_of(capsys)]
    assert [document["runs_total"] for document in shown] == [3, 3]
    assert slept == [2.0, 2.0]
    slept.clear()
    assert cli.main(["status", "--watch", "0.5", "--base-dir", str(base)]) == 0
    assert lines_of(capsys).count("anchored: all 6 roots, final on local") == 2
    assert slept == [0.5, 0.5]


@pytest.mark.parametrize(
    ("text", "found"), [("10000d", 3), ("1h", 0), ("2001-01-01", 3), ("2026-06-01T00:00Z", 0)]
)
def test_since_takes_an_age_or_a_date(
    text: str, found: int, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", "--since", text, "--json", "--base-dir", str(base)]) == 0
    assert json.loads(capsys.readouterr().out)["runs_total"] == found


def test_what_is_no_time_is_one_line(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--since", "soon", "--base-dir", str(base)]) == 2
    assert capsys.readouterr().err == (
        "provenance: --since: found 'soon', expected such as 90min, 36h, 7d or 2026-05-31\n"
    )


def test_pages_of_a_running_fleet_are_named(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from provenance.app.up import only_fleet

    with only_fleet(base):
        state = base / "run" / "up.json"
        both = '"Flower": "http://127.0.0.1:5555", "dashboard": "http://127.0.0.1:6666"'
        pages = f'"pages": {{{both}}}, "flower_auth": "user:secret"'
        (base / "tokens.json").touch()
        state.write_text(f'{{"redis_url": null, {pages}}}')
        state.chmod(0o600)
        assert cli.main(["status", "--base-dir", str(base)]) == 0
        login = "user and password: flower_auth in run/up.json"
        token = "any user, a token of 'provenance token new' as password"
        lines = lines_of(capsys)
        assert f"Flower: http://127.0.0.1:5555, {login}" in lines
        assert f"dashboard: http://127.0.0.1:6666, {token}" in lines
        assert cli.main(["status", "--json", "--base-dir", str(base)]) == 0
    said = capsys.readouterr().out
    assert json.loads(said)["logins"] == {"Flower": login, "dashboard": token}
    assert "secret" not in said


def test_migrate_says_whether_the_schema_is_this_release_s(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def migrate(*words: str) -> tuple[int, str]:
        code = cli.main(["migrate", *words, "--base-dir", str(base)])
        return code, capsys.readouterr().err

    assert migrate("--check") == (0, "the database is at schema revision 0001 already\n")
    assert migrate("--to", "0001")[0] == 0
    assert migrate("--to", "0000") == (
        2, "provenance: --to: found '0000', expected one of 0001\n",
    )  # fmt: skip
    path = base / "ledger.db"
    path.unlink()
    assert migrate("--check") == (1, "the database is at schema revision none, expected 0001\n")
    assert not path.exists(), "a look makes nothing"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('0002')")
        connection.commit()
    for words_ in ((), ("--check",)):
        code, said = migrate(*words_)
        assert code == 2
        assert "schema revision 0002, newer than this release knows (0001)" in said


def test_a_database_that_is_not_ours_to_write_is_one_line(
    postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import psycopg

    name = postgres_url.rpartition("/")[2]
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS onlooker")
        admin.execute("CREATE ROLE onlooker LOGIN PASSWORD 'looks'")
    try:
        host = postgres_url.partition("@")[2]
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"database_url": f"postgresql://onlooker:looks@{host}"}))
        command = ["migrate", "--config", str(config), "--base-dir", str(tmp_path)]
        assert cli.main(command) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"database {name} at 127.0.0.1" in said
        assert "is not this user's to write: permission denied for schema public" in said
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            admin.execute("DROP OWNED BY onlooker")
            admin.execute("DROP ROLE onlooker")


def test_what_a_list_says_is_kept_as_records_come(base: Path) -> None:
    """The kept summary of a run is that of all its records, however they came."""
    split, at_once = World(names=()), World(names=())
    events = story(3)
    at_once.ingest(at_once.batch(events))
    for at in range(0, len(events), 2):
        split.ingest(split.batch(events[at : at + 2], first=at))
    found = []
    for world in (split, at_once):
        with world.store.snapshot() as tx:
            ((row, summary),) = tx.list_runs(Wanted(NOW))[0]
        assert row.run == RUN
        found.append(summary)
    assert found[0] == found[1]
    assert (found[0].state, found[0].epoch, found[0].dropped) == ("finished", 3, 0)
