"""All runs at once: the same outcome as one by one.

Over 400 lines: case by case, one file: `provenance/app/verify_all.py`.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.console import Console

from provenance.app import verify_all as module
from provenance.app.verify import verify_run
from provenance.app.verify_all import AllRuns, verify_all
from provenance.bootstrap import reading, sending
from provenance.cli import main, output
from provenance.cli.auditor import verify as command
from provenance.errors import (
    IntegrityError,
    LyingNodeError,
    NetworkUnavailable,
    ProvenanceError,
    RejectedError,
    StoreUnavailable,
    UnknownRunError,
    WrongNetworkError,
)
from provenance.evidence.from_database import from_store
from provenance.formats.fields import as_json
from provenance.ports.network import Network
from provenance.ports.values import AnchorState, Identity, Observation, Place
from provenance.settings import Settings, load
from provenance.stores.sql import SqlStore
from provenance.verify import nodes as nodes_module
from provenance.verify.nodes import Nodes
from provenance.verify.report import RunResult
from provenance.verify.verifier import verify
from tests.support import verify_world
from tests.support.runs import run_of
from tests.support.verify_world import KEY, NOW, OWN, SIGNER, World, before, ending, metrics, story

pytestmark = pytest.mark.slow

RUNS = [run_of(0x01890A5DAC96 + at, KEY) for at in range(4)]


@dataclass
class Deployment:
    """A database file with four finished runs on two networks; two heads cover all four."""

    folder: Path
    world: World = field(default_factory=World)

    def __post_init__(self) -> None:
        self.world.store.close()
        self.world.store = self.open()
        for at, run in enumerate(RUNS):
            events = ending([*before(), *map(metrics, range(1, at + 2))])
            self.world.ingest(self.world.batch(events[:6], run=run))
            if at == 1:  # an equivocation, and a record too late
                self.world.ingest(self.world.batch([metrics(1)], first=6, run=run))
                self.world.ingest(self.world.batch([metrics(1, loss=7.0)], first=6, run=run))
                self.world.ingest(self.world.batch(events[7:], first=7, run=run))
                self.world.ingest(self.world.batch([metrics(9)], first=40, run=run))
            else:
                self.world.ingest(self.world.batch(events[6:], first=6, run=run))
            if at % 2:
                self.world.anchor()
        self.world.store.close()

    @property
    def file(self) -> Path:
        return self.folder / "provenance.db"

    def open(self) -> SqlStore:
        return SqlStore.open(f"sqlite:///{self.file}")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return Deployment(tmp_path_factory.mktemp("deployment"))


def everything(
    deployment: Deployment,
    *,
    file: Path | None = None,
    networks: Mapping[str, Network] | None = None,
    online: bool = True,
) -> list[RunResult]:
    store = SqlStore.open(f"sqlite:///{file or deployment.file}")
    nodes = Nodes(networks or deployment.world.networks) if online else None
    with closing(store):
        return list(AllRuns(store, SIGNER.verifier, nodes, trust=OWN, clock=lambda: NOW))


class Asked:
    """A network that counts what it is asked, and raises what a test wants."""

    def __init__(self, inner: Network) -> None:
        self.inner = inner
        self.asked: Counter[str] = Counter()
        self.errors: dict[str, ProvenanceError] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def identity(self) -> Identity:
        self.asked["identity"] += 1
        if "identity" in self.errors:
            raise self.errors["identity"]
        return self.inner.identity()

    def lookup(self, transaction_id: str) -> Observation:
        self.asked[transaction_id] += 1
        for name in ("lookup", transaction_id):
            if name in self.errors:
                raise self.errors[name]
        return self.inner.lookup(transaction_id)


class Many(Asked):
    """Takes many lookups at once."""

    def lookup_many(self, transaction_ids: list[str]) -> dict[str, Observation]:
        self.asked["many"] += 1
        if "many" in self.errors:
            raise self.errors["many"]
        seen = {each: self.inner.lookup(each) for each in transaction_ids}
        return {each: one for each, one in seen.items() if one.place is Place.MINED}


def asked(deployment: Deployment, kind: type[Asked] = Asked) -> dict[str, Any]:
    return {name: kind(network) for name, network in deployment.world.networks.items()}


# --- the same as one by one ---------------------------------------------------------------


@pytest.mark.parametrize("online", [True, False])
def test_each_run_comes_out_as_it_does_alone(deployment: Deployment, online: bool) -> None:
    networks = deployment.world.networks
    results = everything(deployment, online=online)
    expected = "verified" if online else "consistent"
    assert [result.outcome for result in results] == [expected] * 4
    assert [result.run for result in results] == RUNS, "oldest first"
    with closing(deployment.open()) as store:
        for result in results:
            alone = verify(
                from_store(store, result.run, SIGNER.verifier),
                networks if online else None,
                verifier_key=SIGNER.verifier,
                trust=OWN,
                now=NOW,
            )
            whole, mine = alone.as_dict(), result.as_dict()
            checks = [
                {name: check[name] for name in ("number", "status", "detail")}
                for check in whole["checks"]
            ]
            assert mine["checks"] == checks
            for name in mine.keys() - {"checks"}:
                assert mine[name] == whole[name], name
            assert result.report is not None
            assert result.report.seals == alone.seals
    assert results[1].report is not None
    assert len(results[1].report.notices) == 2


TABLES = (
    "runs",
    "records",
    "records",
    "records",
    "producers",
    "statements",
    "equivocations",
    "parked",
    "ledger_entries",
    "heads",
    "anchors",
    "anchor_versions",
    "receipts",
)


def plant(file: Path, table: str, chance: random.Random) -> str | None:
    """Change one value of one row, whatever it is; None where it could not be."""
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        rows = [row[0] for row in db.execute(f"SELECT rowid FROM {table}")]
        if not rows:
            return None
        column, row = chance.choice(columns), chance.choice(rows)
        (old,) = db.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (row,)).fetchone()
        try:
            db.execute(
                f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (other(old, chance), row)
            )
        except sqlite3.IntegrityError:
            return None
        return f"{table}.{column}"


def other(value: Any, chance: random.Random) -> Any:
    if isinstance(value, bytes) and value:
        at = chance.randrange(8 * len(value))
        return (int.from_bytes(value, "big") ^ 1 << at).to_bytes(len(value), "big")
    if isinstance(value, str) and value:
        at = chance.randrange(len(value))
        return value[:at] + chance.choice("x0 \n\u00e9{") + value[at + 1 :]
    if isinstance(value, int | float):
        return chance.choice([value + 1, -1, 0, 2**62])
    return chance.choice(["x", b"x", 7])


NUMBERS = count()


@settings(max_examples=30)
@given(table=st.sampled_from(TABLES), seed=st.integers(0, 2**32))
@example(table="anchors", seed=3628801)
@example(table="statements", seed=15932349)
@pytest.mark.slow
def test_every_planted_fault_comes_out_as_it_does_alone(
    deployment: Deployment, table: str, seed: int
) -> None:
    file = deployment.folder / f"{next(NUMBERS)}.db"
    shutil.copyfile(deployment.file, file)
    where = plant(file, table, random.Random(seed))
    assume(where is not None)
    for online in (True, False):
        results = outcomes(deployment, file, online)
        if isinstance(results, list):
            networks = deployment.world.networks if online else None
            with closing(SqlStore.open(f"sqlite:///{file}")) as store:
                for result in results:
                    assert result.as_dict()["findings"] == alone(store, result, networks)
    evident = ("records.data", "records.digest", "producers.certificate", "statements.signature")
    if where in evident:
        assert isinstance(results, list)
        assert "failed" in {result.outcome for result in results}, where


def outcomes(deployment: Deployment, file: Path, online: bool) -> list[RunResult] | str:
    """Results, or the one line that there are none."""
    try:
        return everything(deployment, file=file, online=online)
    except ProvenanceError as error:
        return str(error)


def alone(store: SqlStore, result: RunResult, networks: Mapping[str, Network] | None) -> Any:
    """What a verification of the run alone finds; where it cannot be read, what ``result`` says."""
    try:
        evidence = from_store(store, result.run, SIGNER.verifier)
    except (ProvenanceError, ValueError, TypeError, LookupError, AttributeError) as error:
        assert result.problem == (str(error) or type(error).__name__)
        return as_json(result.findings)
    report = verify(evidence, networks, verifier_key=SIGNER.verifier, trust=OWN, now=NOW)
    assert result.outcome == report.outcome
    return report.as_dict()["findings"]


def test_a_changed_record_fails_its_run_alone(deployment: Deployment, tmp_path: Path) -> None:
    file = tmp_path / "faulty.db"
    shutil.copyfile(deployment.file, file)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE records SET data = x'7b7d' WHERE run = ? AND seq = 6", (RUNS[2].hex,))
    found = everything(deployment, file=file)
    assert [result.outcome for result in found].count("failed") == 1
    assert found[2].findings[0].subject == "training/epoch/1/metrics/0"


def test_a_reorg_is_seen(deployment: Deployment) -> None:
    networks = asked(deployment)
    lost = RejectedError("bitcoin: no such transaction")
    networks["bitcoin"].errors["lookup"] = lost
    found = everything(deployment, networks=networks)
    assert [result.outcome for result in found] == ["failed"] * 4
    assert {finding.problem for result in found for finding in result.findings} == {str(lost)}


# --- nodes --------------------------------------------------------------------------------


def test_each_transaction_is_looked_up_once(deployment: Deployment) -> None:
    networks = asked(deployment)
    everything(deployment, networks=networks)
    for network in networks.values():
        assert set(network.asked.values()) == {1}, "identity, and each transaction"
        assert len(network.asked) <= 1 + 4


def test_many_are_asked_for_at_once_where_the_network_can(deployment: Deployment) -> None:
    networks = asked(deployment, Many)
    found = everything(deployment, networks=networks)
    assert [result.as_dict() for result in found] == [
        result.as_dict() for result in everything(deployment)
    ]
    for network in networks.values():
        assert network.asked == {"identity": 1, "many": 1}


@pytest.mark.parametrize(
    "error", [LyingNodeError("one answer too large"), NetworkUnavailable("a hiccup")]
)
def test_where_that_fails_they_are_asked_one_by_one(
    deployment: Deployment, error: ProvenanceError
) -> None:
    networks = asked(deployment, Many)
    networks["ethereum"].errors["many"] = error
    found = everything(deployment, networks=networks)
    assert [result.outcome for result in found] == ["verified"] * 4
    counts = networks["ethereum"].asked
    assert all(number == 1 for name, number in counts.items() if name != "identity")
    assert counts["identity"] <= 2


@pytest.mark.parametrize("kind", [Asked, Many])
@pytest.mark.parametrize(
    "error",
    [
        NetworkUnavailable("node is down"),
        WrongNetworkError("another chain"),
        LyingNodeError("a lie"),
    ],
)
def test_a_node_that_is_down_is_asked_once(
    deployment: Deployment, kind: type[Asked], error: ProvenanceError
) -> None:
    networks = asked(deployment, kind)
    networks["ethereum"].errors["identity"] = error
    found = everything(deployment, networks=networks)
    assert [result.outcome for result in found] == ["anchored"] * 4
    for result in found:
        assert result.report is not None
        places = result.report.networks
        assert {seal.reason for seal in places["ethereum"].values()} == {str(error)}
        assert {seal.status for seal in places["bitcoin"].values()} == {"verified"}
    assert networks["ethereum"].asked == {"identity": 1}


def test_a_node_that_goes_away_in_between_is_left_alone(deployment: Deployment) -> None:
    networks = asked(deployment)
    network = networks["ethereum"]
    nodes = Nodes(networks)
    with closing(deployment.open()) as store:
        results = iter(AllRuns(store, SIGNER.verifier, nodes, trust=OWN))
        assert next(results).outcome == "verified"
        network.errors["lookup"] = network.errors["identity"] = NetworkUnavailable("gone")
        network.asked.clear()
        assert [result.outcome for result in results] == ["verified", "anchored", "anchored"]
    assert sum(network.asked.values()) == 2, "one lookup, and the question whether it is there"


def test_one_transaction_without_an_answer_is_not_the_node(deployment: Deployment) -> None:
    networks = asked(deployment)
    with closing(deployment.open()) as store, store.snapshot() as tx:
        first = next(row for row in tx.anchors("bitcoin") if row.state is AnchorState.FINAL)
        (version, *_) = tx.versions(first.id)
    txid = version.version.transaction_id
    networks["bitcoin"].errors[txid] = NetworkUnavailable("keeps no index")
    found = everything(deployment, networks=networks)
    assert {result.outcome for result in found} == {"verified", "anchored"}
    assert networks["bitcoin"].asked[txid] == 1
    assert networks["bitcoin"].asked["identity"] == 2


def test_patience_with_lookups_without_an_answer_ends(deployment: Deployment) -> None:
    networks = asked(deployment)
    network = networks["bitcoin"]
    network.errors["lookup"] = NetworkUnavailable("did not answer in time")
    ticks = iter(range(0, 10**6, 40))
    nodes = Nodes(networks, clock=lambda: float(next(ticks)))
    for at in range(5):
        with pytest.raises(NetworkUnavailable, match="did not answer in time"):
            nodes.look(network, f"{at:064x}")
    assert len(network.asked) == 1 + 2, "after twice 40 seconds it is left alone"


def test_what_is_remembered_is_bounded(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes_module, "MAX_SEEN", 3)
    networks = asked(deployment)
    nodes = Nodes(networks)
    for at in (0, 1, 2, 3, 3, 0):
        nodes.look(networks["bitcoin"], f"{at:064x}")
    counts = networks["bitcoin"].asked
    assert [counts[f"{at:064x}"] for at in range(4)] == [2, 1, 1, 1]


def test_networks_that_are_not_set_up_are_said(deployment: Deployment) -> None:
    networks = asked(deployment)
    del networks["bitcoin"]
    nodes = Nodes(networks, {"bitcoin": "no such thing"})
    nodes.look_ahead({"bitcoin": ["a", "b"], "ipfs": ["c", "d"]})
    with closing(deployment.open()) as store:
        (result, *_) = AllRuns(store, SIGNER.verifier, nodes, trust=OWN)
    assert result.report is not None
    assert result.report.networks["bitcoin"]["after"].reason == "no such thing"


# --- chunks and damage --------------------------------------------------------------------


@pytest.mark.parametrize(("runs", "size"), [(1, 1 << 30), (3, 1 << 30), (500, 1), (500, 3000)])
def test_chunks_of_any_size_come_to_the_same(
    deployment: Deployment, runs: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [result.as_dict() for result in everything(deployment)]
    monkeypatch.setattr(module, "CHUNK_RUNS", runs)
    monkeypatch.setattr(module, "CHUNK_BYTES", size)
    assert [result.as_dict() for result in everything(deployment)] == expected


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE records SET kind = 'nonsense' WHERE run = ?", "cannot be read: 'nonsense'"),
        (
            "UPDATE ledger_entries SET phase = 'never' WHERE run = ? AND phase = 'after'",
            "cannot be read: 'never'",
        ),
        ("UPDATE records SET data = 7 WHERE run = ?", "cannot be read"),
    ],
)
def test_a_run_that_cannot_be_read_stops_no_other(
    deployment: Deployment, tmp_path: Path, statement: str, told: str
) -> None:
    file = tmp_path / "faulty.db"
    shutil.copyfile(deployment.file, file)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute(statement, (RUNS[1].hex,))
    found = everything(deployment, file=file)
    assert [result.outcome for result in found] == ["verified", "failed", "verified", "verified"]
    (finding,) = found[1].findings
    assert told in finding.problem
    assert found[1].exit_code == 1
    assert found[1].as_dict()["not_checked"] == []


class Failing(SqlStore):
    """Fails while a run is read, or when a snapshot is begun."""

    run: UUID | None = None
    aborts: bool = False
    after: int = 10**6
    begun: int = 0

    @contextmanager
    def snapshot(self) -> Iterator[Any]:
        self.begun += 1
        if self.begun > self.after:
            raise StoreUnavailable("the database is gone")
        with super().snapshot() as tx:
            yield _Tx(tx, self)


class _Tx:
    def __init__(self, tx: Any, store: Failing) -> None:
        self.tx, self.store, self.aborted = tx, store, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tx, name)

    def run(self, run: UUID) -> Any:
        if self.aborted:
            raise StoreUnavailable("the transaction is aborted")
        return self.tx.run(run)

    def head(self, size: int | None = None) -> Any:
        if self.aborted:
            raise StoreUnavailable("the transaction is aborted")
        return self.tx.head(size)

    def records(self, run: UUID) -> Any:
        if run == self.store.run:
            self.aborted = self.store.aborts
            raise StoreUnavailable("a page of the disk is bad")
        return self.tx.records(run)


@pytest.mark.parametrize("aborts", [False, True])
def test_a_run_that_the_database_does_not_give_is_open_and_stops_no_other(
    deployment: Deployment, aborts: bool
) -> None:
    store = Failing.open(f"sqlite:///{deployment.file}")
    assert isinstance(store, Failing)
    store.run, store.aborts = RUNS[1], aborts
    with closing(store):
        runs = AllRuns(store, SIGNER.verifier, Nodes(deployment.world.networks), trust=OWN)
        begun = store.begun
        found = list(runs)
    assert store.begun - begun == (2 if aborts else 1), "snapshots"
    assert [result.outcome for result in found] == [
        "verified",
        "consistent",
        "verified",
        "verified",
    ]
    assert found[1].as_dict() == {
        "run_id": str(RUNS[1]),
        "outcome": "consistent",
        "exit_code": 3,
        "findings": [],
        "not_checked": ["a page of the disk is bad"],
    }
    assert runs.totals.exit_code == 3


def test_a_database_that_goes_away_leaves_the_rest_open(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_RUNS", 1)
    store = Failing.open(f"sqlite:///{deployment.file}")
    assert isinstance(store, Failing)
    store.after = store.begun + 2
    with closing(store):
        runs = AllRuns(store, SIGNER.verifier, Nodes(deployment.world.networks), trust=OWN)
        assert [result.outcome for result in runs] == ["verified"] + ["consistent"] * 3
    assert runs.totals.as_dict() == {
        "runs": 4,
        "findings": 0,
        "verified": 1,
        "anchored": 0,
        "consistent": 3,
        "failed": 0,
        "exit_code": 3,
    }


def test_a_damaged_list_of_runs_is_one_line(deployment: Deployment, tmp_path: Path) -> None:
    file = tmp_path / "faulty.db"
    shutil.copyfile(deployment.file, file)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE runs SET run = 'nonsense' WHERE run = ?", (RUNS[0].hex,))
    with pytest.raises(IntegrityError, match="list of runs cannot be read"):
        everything(deployment, file=file)


# --- the command --------------------------------------------------------------------------


@pytest.fixture
def artifacts(tmp_path: Path) -> Settings:
    """Three runs on the real local network."""
    found = load(None, tmp_path / "artifacts")
    world: Any = World(names=())
    world.store.close()
    world.store = sending.open_store(found)
    world.policy = sending.seal_policy(found)
    world.networks = sending.open_networks(found)
    for run in RUNS[:3]:
        world.ingest(world.batch(story(), run=run))
    world.anchor()
    world.store.close()
    return found


def tamper(settings: Settings, run: UUID) -> None:
    path = reading.sqlite_path(settings.database_url)
    assert path is not None
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE records SET data = x'7b7d' WHERE run = ? AND seq = 6", (run.hex,))


def test_one_line_per_run_and_a_summary(
    artifacts: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--base-dir", str(artifacts.base_dir)]
    assert main(["verify", "--all", *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [*(f"{run}  verified    local" for run in RUNS[:3]), "3 runs: 3 verified"]
    tamper(artifacts, RUNS[1])
    assert main(["verify", "--all", *where]) == 1
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[1].startswith(
        f"{RUNS[1]}  failed      1 finding: (1) training/epoch/1/metrics/0: SHA-256 of the record"
    )
    assert lines[3] == "3 runs: 2 verified, 1 failed"
    assert captured.err == "", "no progress where stderr is no terminal"
    assert artifacts.blockchain.local is not None
    artifacts.blockchain.local.path.write_text("nonsense\n")
    assert main(["verify", "--all", *where]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "consistent  (8) each network has the anchor: before on local unreachable: " in lines[0]


def test_json_is_one_object(artifacts: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--base-dir", str(artifacts.base_dir), "--json"]
    assert main(["verify", "--all", *where]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [run["run_id"] for run in document["runs"]] == [str(run) for run in RUNS[:3]]
    assert document["totals"] == {
        "runs": 3,
        "findings": 0,
        "verified": 3,
        "anchored": 0,
        "consistent": 0,
        "failed": 0,
        "exit_code": 0,
    }


def test_a_run_is_lost_after_what_the_configuration_says(
    artifacts: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_world, "NOW", time.time() - 60)
    world: Any = World(names=())
    world.store.close()
    world.store = sending.open_store(artifacts)
    world.ingest(world.batch(before(), run=RUNS[3]))
    world.store.close()
    for seconds, state in ((30.0, "lost"), (3600.0, "running")):
        own = replace(artifacts, lost_after_s=seconds)
        with verify_all(own, offline=True) as runs:
            *_, last = runs
        assert last.report is not None
        assert last.report.state.state == state
        assert verify_run(own, str(RUNS[3]), offline=True).state == last.report.state


def test_no_runs_no_database_and_too_many_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = load(None, tmp_path / "empty")
    with pytest.raises(UnknownRunError, match="there is no database yet"), verify_all(empty):
        pass
    assert main(["verify", "--all", "--base-dir", str(empty.base_dir)]) == 2
    assert not empty.base_dir.exists(), "verifying makes no database"
    assert main(["verify", "--all", "latest", "--base-dir", str(empty.base_dir)]) == 2
    assert "found --all and latest, expected one of the two" in capsys.readouterr().err
    assert main(["verify", "--all", "--cross", "--base-dir", str(empty.base_dir)]) == 2
    assert "--cross: found --all, expected one RUN or PATH" in capsys.readouterr().err
    store = sending.open_store(empty)
    assert store is not None
    store.close()
    assert main(["verify", "--all", "--base-dir", str(empty.base_dir)]) == 0
    assert capsys.readouterr().out == "0 runs: there are none yet\n"
    assert main(["verify", "--all", "--json", "--base-dir", str(empty.base_dir)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["runs"], document["totals"]["runs"]) == ([], 0)


def test_a_run_that_cannot_be_read_has_its_line(
    artifacts: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    path = reading.sqlite_path(artifacts.database_url)
    assert path is not None
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE records SET kind = 'nonsense' WHERE run = ?", (RUNS[0].hex,))
    assert main(["verify", "--all", "--base-dir", str(artifacts.base_dir)]) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"{RUNS[0]}  failed      1 finding: (1) run: cannot be read: ")
    result = RunResult(RUNS[0], "consistent", None, "the disk is bad")
    assert command._line(result) == f"{RUNS[0]}  consistent  the disk is bad"


def test_progress_is_shown_on_a_terminal(
    artifacts: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Console(stderr=True, force_terminal=True, width=100)
    monkeypatch.setattr(output, "err", shown)
    assert main(["verify", "--all", "--base-dir", str(artifacts.base_dir)]) == 0
    captured = capsys.readouterr()
    assert "verifying" in captured.err
    assert captured.out.splitlines()[-1] == "3 runs: 3 verified"
    assert "verifying" not in captured.out


def test_networks_that_are_handed_in_are_left_open(artifacts: Settings) -> None:
    local = sending.open_networks(artifacts)["local"]
    closed: list[str] = []
    local.close = lambda: closed.append("local")  # type: ignore[method-assign]  # a stand-in
    with verify_all(artifacts, networks={"local": local}) as runs:
        assert len(runs) == 3
        assert [result.outcome for result in runs] == ["verified"] * 3
    assert closed == []
    chain = replace(artifacts.blockchain, networks=("ethereum", "local"))
    with verify_all(replace(artifacts, blockchain=chain)) as runs:
        assert [result.outcome for result in runs] == ["verified"] * 3
