"""What the commands do with a run, a bundle and nodes: exit codes, lines, JSON.

Over 400 lines: case by case, one subject.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib.abc import MetaPathFinder
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import provenance_devnet as devnet
from provenance import cli, files
from provenance.app import up
from provenance.app.bundle import make_bundle
from provenance.app.report import write_report
from provenance.bootstrap import sending
from provenance.capture.reasons import UNSHIPPED, UNSIGNED
from provenance.chains.bitcoin.rpc import Value
from provenance.chains.ethereum import interface
from provenance.cli import demo as demo_command
from provenance.cli import up as up_command
from provenance.errors import InputError, MissingExtraError, TransportUnavailable
from provenance.formats.producers.certificate import identity_statement, sign_identity
from provenance.formats.record import Kind
from provenance.settings import Settings, load
from provenance.stores import redis_streams
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.redis_board import RedisBoard
from provenance.verify import identity as who
from provenance_devnet import InstallResult, ServerState, processes, programs
from provenance_devnet.state import Book, Entry
from tests.support.nodes.paper_node import paper_node
from tests.support.nodes.rpc_stub import json_rpc_server
from tests.support.sigstore_world import ISSUER, WHO, Sigstore
from tests.support.verify_world import (
    OTHER,
    RUN,
    Fields,
    World,
    before,
    flip_metric,
    story,
    training,
)

pytestmark = pytest.mark.slow

METRICS = "records/training/epoch/2/metrics/0.json"
REFUSED = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PROVENANCE_")]:
        monkeypatch.delenv(name)


def deployment(base: Path, *others: str, events: Sequence[Fields] | None = None) -> Settings:
    """A database with one run, a finished one, on the local network and on chains in memory."""
    found = load(None, base)
    world: Any = World(names=())
    world.store.close()
    world.store = sending.open_store(found)
    signer = sending.seal_policy(found).signer
    world.networks = {
        **sending.open_networks(found),
        **{name: paper_node(name, 9) for name in others},
    }
    world.policy = type(world.policy)(("local", *others), signer)
    world.ingest(world.batch(story() if events is None else events))
    world.anchor()
    world.store.close()
    return found


@pytest.fixture
def run(tmp_path: Path) -> Settings:
    return deployment(tmp_path / "artifacts")


@pytest.fixture
def bundle(run: Settings) -> Path:
    return make_bundle(run, "latest", Path("bundle")).path


def config(**networks: dict[str, object]) -> str:
    """A configuration file of these networks beside the local one."""
    path = Path("config.json")
    retry = {"timeout": 2}
    chain = {name: {**section, **retry} for name, section in networks.items()}
    names = [*networks, "local"]
    path.write_text(json.dumps({"blockchain": {"networks": names, **chain}}))
    return str(path)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command with --json; its exit code and the one JSON object."""

    def run_it(*words: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = cli.main([*words, "--json"])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        document = json.loads(shown.out)
        assert isinstance(document, dict)
        return code, document

    return run_it


# --- verify, report, path, status --------------------------------------------------------


@pytest.mark.parametrize("name", ["latest", str(RUN), RUN.hex[:8]])
def test_a_fine_run_is_0(run: Settings, said: Any, name: str) -> None:
    code, document = said("verify", name)
    assert (code, document["outcome"]) == (0, "verified")
    assert document["networks"]["local"]["after"]["status"] == "verified"


def test_a_bundle_without_pins_is_3_and_needs_no_database(
    bundle: Path, said: Any, tmp_path: Path
) -> None:
    code, document = said("verify", str(bundle), "--offline", "--base-dir", "elsewhere")
    assert (code, document["outcome"]) == (3, "consistent")
    assert not (tmp_path / "elsewhere").exists()


def test_a_changed_record_is_1_and_named(
    bundle: Path, said: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    record = bundle / METRICS
    record.write_bytes(flip_metric(record.read_bytes()))
    code, document = said("verify", str(bundle), "--offline")
    assert (code, document["outcome"]) == (1, "failed")
    assert {f["subject"] for f in document["findings"]} == {"training/epoch/2/metrics/0"}
    assert cli.main(["verify", str(bundle), "--offline"]) == 1
    assert "FOUND (1) training/epoch/2/metrics/0: " in capsys.readouterr().out


def test_a_changed_row_is_1(run: Settings, said: Any) -> None:
    world: Any = World(names=())
    world.store = sending.open_store(run)
    with world.store.snapshot() as tx:
        victim = next(r for r in tx.records(RUN) if r.kind == "metrics" and r.epoch == 2)
    changed = flip_metric(victim.data)
    world.sql("update records set data = ? where seq = ?", changed, victim.seq)
    world.store.close()
    code, document = said("verify", "latest")
    assert code == 1
    assert any("epoch/2/metrics" in f["subject"] for f in document["findings"])


def test_an_unreachable_node_is_3(tmp_path: Path, said: Any) -> None:
    deployment(tmp_path / "artifacts", "ethereum")
    file = config(ethereum={"url": REFUSED})
    code, document = said("verify", "latest", "--config", file)
    assert (code, document["outcome"]) == (3, "consistent")
    assert document["networks"]["local"]["after"]["status"] == "verified"
    assert document["networks"]["ethereum"]["after"]["status"] == "unreachable"
    assert any("ethereum" in line for line in document["not_checked"])


def test_what_is_no_bundle_and_no_run_is_2(
    run: Settings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    for words, text in (
        (["verify", "folder"], "folder: not a bundle, there is no manifest.json"),
        (["verify", "0192ffff"], "run 0192ffff: not in the database; known: 1 run"),
        (["verify", "not-a-run"], "expected a run id"),
        (["status", "0192ffff"], "run 0192ffff: not in the database; known: 1 run"),
        (["report", "0192ffff"], "run 0192ffff: not in the database; known: 1 run"),
        (["path", "folder"], "folder"),
    ):
        assert cli.main(words) == 2, words
        shown = capsys.readouterr()
        assert text in shown.err, words
        assert shown.err.count("\n") == 1
        assert shown.out == ""


def test_a_damaged_bundle_is_1_and_names_the_file(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "manifest.json").write_text("{")
    assert cli.main(["verify", str(bundle), "--offline"]) == 1
    shown = capsys.readouterr().err
    assert "manifest.json" in shown
    assert shown.count("\n") == 1


def test_verify_for_people_says_what_was_not_checked(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", str(bundle), "--offline", "--base-dir", "elsewhere"]) == 3
    shown = capsys.readouterr().out
    first, training, rests_on = shown.splitlines()[:3]
    assert first == f"run {RUN}: consistent"
    assert training == "  training, as its records say: finished (completed)"
    assert rests_on.startswith("  rests on: ledger key ")
    assert "which nobody pinned" in rests_on
    assert "not checked: " in shown
    assert "local" in shown


def test_the_checks_explained(said: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = said("verify", "--explain")
    assert code == 0
    numbers = [check["number"] for check in document["checks"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert cli.main(["verify", "--explain"]) == 0
    assert capsys.readouterr().out.startswith("(1) ")


def test_report_goes_where_it_is_told(
    run: Settings, said: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = said("report", "latest")
    assert code == 0
    assert Path(document["report_path"]) == Path("artifacts/reports", str(RUN), "report.html")
    assert Path(document["report_path"]).is_file()
    assert cli.main(["report", "latest", "-o", "mine"]) == 0
    assert capsys.readouterr().out == f"{Path('mine') / 'report.html'}\n"
    assert (Path("mine") / "evidence" / "manifest.json").is_file()


def test_path_of_a_record(bundle: Path, said: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = said("path", str(bundle / METRICS))
    assert code == 0
    assert cli.main(["path", str(bundle / METRICS)]) == 0
    _, verified = said("verify", str(bundle), "--offline")
    assert verified["roots"]["after"] in json.dumps(document)


def test_status_of_all_and_of_one(
    run: Settings, said: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = said("status")
    assert code == 0
    assert [r["run_id"] for r in document["runs"]] == [str(RUN)]
    assert document["networks"]["local"]["anchors"]["final"] >= 1
    assert document["stream_entries"] is None
    code, document = said("status", "latest")
    assert document["state"] == "sealed"
    assert [root["phase"] for root in document["roots"]] == ["before", "after"]
    assert document["networks"]["local"]["after"]["status"] == "final"
    assert document["epochs"] == [1, 2, 3]
    assert cli.main(["status"]) == 0
    assert cli.main(["status", "latest"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("anchored: all 2 roots, final on local\n")
    assert "stream: no Redis configured" in shown
    assert f"run {RUN}: finished (completed), sealed, " in shown


def test_status_of_a_stopped_run_has_the_anchor_of_its_checkpoint_and_waits_for_no_other(
    said: Any, tmp_path: Path
) -> None:
    events = [*before(), *training(2, checkpoint=2)]
    end = {"events": len(events), "reason": "ValueError", "state": "failed"}
    deployment(tmp_path / "artifacts", events=[*events, (Kind.RUN_END, None, end)])
    _, document = said("status", "latest")
    found = {seal: state["status"] for seal, state in document["networks"]["local"].items()}
    assert found == {"before": "final", "checkpoint 2": "final"}


@pytest.mark.parametrize("command", ["verify latest", "verify --all", "status latest"])
def test_a_database_whose_later_pages_are_damaged_is_one_line(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = deployment(tmp_path / "artifacts", events=story(epochs=200))
    path = found.base_dir / "ledger.db"
    with closing(sqlite3.connect(path)) as connection:
        root = "SELECT pageno FROM dbstat WHERE name = 'records' AND pagetype = 'leaf'"
        pages = [page for (page,) in connection.execute(root)]
    with path.open("r+b") as file:
        file.seek((pages[len(pages) // 2] - 1) * 4096)
        file.write(b"\xff" * 4096)
    assert cli.main(command.split()) == 3
    shown = capsys.readouterr()
    assert "ledger.db: database disk image is malformed" in shown.out + shown.err


def test_filters_of_the_list_do_not_go_with_one_run(
    run: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", "latest", "--state", "failed"]) == 2
    assert "--state: found RUN latest too" in capsys.readouterr().err


def test_status_shows_the_newest_runs_and_counts_the_others(
    run: Settings, said: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    store = sending.open_store(run)
    with store.transaction() as tx:
        created = tx.runs()[0].created_at
        newer = tx.add_run(OTHER, bytes(32), created + 60).run
    store.close()
    assert cli.main(["status", "--limit", "1"]) == 0
    shown = capsys.readouterr().out
    assert "page 1 of 2, 2 runs" in shown
    assert str(newer) in shown
    assert str(RUN) not in shown
    document = said("status")[1]
    assert [(r["run_id"], r["seals"]) for r in document["runs"]] == [
        (str(newer), []),
        (str(RUN), ["before", "after"]),
    ]


def test_status_tells_who_stands_behind_a_run(
    run: Settings, said: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said("status", "latest")[1]["identity"] is None
    somebody = Ed25519PrivateKey.from_private_bytes(b"i" * 32)
    store = sending.open_store(run)
    with store.transaction() as tx:
        row = tx.run(RUN)
        assert row is not None
        tx.add_run(RUN, row.public_key, 0.0, sign_identity(RUN, row.public_key, somebody))
    store.close()
    public = somebody.public_key().public_bytes_raw().hex()
    assert said("status", "latest")[1]["identity"] == public
    assert said("status")[1]["runs"][0]["identity"] == public
    assert cli.main(["status", "latest"]) == 0
    assert f"identity: {public}" in capsys.readouterr().out
    config = run.base_dir / "trust.json"
    config.write_text(json.dumps({"trust": {"trainers": {"the vision team": public}}}))
    assert said("status", "latest", "--config", str(config))[1]["trainer"] == "the vision team"
    assert cli.main(["status", "--config", str(config)]) == 0
    assert "the vision team" in capsys.readouterr().out


def test_status_names_who_sigstore_certifies(
    run: Settings,
    said: Any,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = MissingExtraError("sigstore", "sigstore")

    def missing(*_: object, **__: object) -> None:
        raise absent

    sigstore, store = Sigstore(), sending.open_store(run)
    with store.transaction() as tx:
        row = tx.run(RUN)
        assert row is not None
        bundle = sigstore.sign(identity_statement(RUN, row.public_key))
        tx.add_run(RUN, row.public_key, 0.0, b"\x02" + bundle)
    store.close()
    assert said("status", "latest")[1]["identity"].startswith("does not hold: "), "another root"
    root = str(sigstore.trusted_root(tmp_path / "root.json"))
    pins = {"sigstore_root": root, "trainers": {"ci": {"identity": WHO, "issuer": ISSUER}}}
    config = tmp_path / "trust.json"
    config.write_text(json.dumps({"trust": pins}))
    document = said("status", "latest", "--config", str(config))[1]
    assert document["identity"] == {"name": WHO, "issuer": ISSUER, "not_checked": None}
    assert document["trainer"] == "ci"
    assert cli.main(["status", "latest", "--config", str(config)]) == 0
    assert f"identity: {WHO}, by {ISSUER} (ci)" in capsys.readouterr().out
    with monkeypatch.context() as patched:
        patched.setattr(who, "certify", missing)
        document = said("status", "latest", "--config", str(config))[1]
        assert (document["identity"]["not_checked"], document["trainer"]) == (str(absent), None)
        assert cli.main(["status", "latest", "--config", str(config)]) == 0
        assert f"identity: not checked: {WHO}, by {ISSUER}: " in capsys.readouterr().out
        assert cli.main(["status", "--config", str(config)]) == 0
        assert f"not checked: {WHO}" in capsys.readouterr().out
    assert said("fsck", "--offline")[1]["checked"]["sigstore_identities_without_their_root"] == 1
    folder = run.base_dir / "spool" / "one"
    folder.mkdir(parents=True)
    (folder / UNSIGNED).write_text("Sigstore: no token")
    (folder / UNSHIPPED).write_text("coincurve is not installed")
    document = said("status")[1]
    assert document["unsigned"] == {"one": "Sigstore: no token"}
    assert document["unshipped"] == {"one": "coincurve is not installed"}
    assert cli.main(["status"]) == 0
    told = capsys.readouterr().out
    assert "run one goes on without an identity: Sigstore: no token" in told
    assert "run one cannot be shipped: coincurve is not installed" in told


def test_status_without_a_database_is_an_empty_one(said: Any, tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "spool").mkdir(parents=True)
    code, document = said("status")
    assert (code, document["runs"], document["spool_bytes"]) == (0, [], 0)
    assert not (tmp_path / "artifacts" / "ledger.db").exists()


@pytest.mark.parametrize(
    "command",
    ["status", "status latest", "doctor", "events parked", "migrate", "ship --once"],
)
def test_a_mistyped_base_directory_is_one_line_and_stays_absent(
    run: Settings, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for name, found in (
        ("artefacts", "no such folder"),
        ("empty", "a folder without a ledger or a spool"),
    ):
        assert cli.main([*command.split(), "--base-dir", name]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err == (
            f"provenance: --base-dir {name}: {found}, expected a deployment's "
            f"(did you mean {tmp_path}/artifacts?)\n"
        )
    assert not (tmp_path / "artefacts").exists()
    assert not list((tmp_path / "empty").iterdir())


def test_status_tells_the_backlog(
    run: Settings, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = MemoryTransport()
    transport.append([b"one", b"two"])
    monkeypatch.setenv("PROVENANCE_REDIS_URL", "redis://127.0.0.1:1/0")
    code, document = said("status")
    assert (code, document["stream_entries"], document["runs_total"]) == (3, None, 1)
    assert document["problems"][0].startswith("Redis at 127.0.0.1:1/0: ")
    monkeypatch.setattr(redis_streams, "RedisStreams", lambda _: transport)
    assert said("status")[1]["stream_entries"] == 2


# --- doctor ------------------------------------------------------------------------------


def finding(document: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [
        f for f in document["findings"] if (f["kind"], f["name"]) == (kind, name)
    ]
    assert len(found) == 1, document["findings"]
    return found[0]


@pytest.fixture
def redis_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = programs.Program("redis", "redis-server", tmp_path / "redis-server", on_path=False)
    monkeypatch.setattr(programs, "find", lambda name, home: here if name == "redis" else None)
    monkeypatch.setattr("provenance.cli.doctor.redis_server", lambda home: here.path)


@pytest.mark.usefixtures("redis_here")
def test_doctor_finds_all_well(said: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = said("doctor")
    assert code == 0, document
    assert finding(document, "network", "local")["works"]
    assert finding(document, "database", "ledger")["works"]
    ethereum = finding(document, "program", "ethereum")
    assert (ethereum["works"], ethereum["needed"]) == (False, False)
    assert "devnet install" in ethereum["mend"] or "install" in ethereum["mend"]
    assert cli.main(["doctor"]) == 0
    assert "FAILS" not in capsys.readouterr().out


@pytest.mark.usefixtures("redis_here")
def test_doctor_without_the_dev_servers_says_how_to_get_them(
    said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "provenance.cli.doctor.find_spec",
        lambda name: None if name == "provenance_devnet" else find_spec(name),
    )
    code, document = said("doctor")
    assert code == 0
    devnet_package = finding(document, "package", "provenance_devnet")
    assert (devnet_package["works"], devnet_package["needed"]) == (False, False)
    assert "pip install -e deploy/devnet" in devnet_package["mend"]
    assert not [f for f in document["findings"] if f["kind"] == "program"]


def test_doctor_misses_redis_and_says_how_to_get_it(
    said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "find", lambda name, home: None)
    monkeypatch.setattr("provenance.cli.doctor.redis_server", lambda home: None)
    code, document = said("doctor")
    assert code == 3
    redis = finding(document, "server", "redis")
    assert not redis["works"]
    assert "install" in redis["mend"]


@pytest.mark.usefixtures("redis_here")
def test_doctor_finds_another_deployment_on_the_same_redis(
    said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport, own = MemoryTransport(), sending.ledger_signer(load(None, "artifacts"))
    monkeypatch.setenv("PROVENANCE_REDIS_URL", "redis://127.0.0.1:1/0")
    answers(monkeypatch, waiting=0)
    monkeypatch.setattr(RedisBoard, "ledger", lambda board: transport.ledger())
    monkeypatch.setattr(redis_streams, "RedisStreams", lambda _: transport)
    assert transport.ledger(own.verifier.vkey)
    assert said("doctor")[0] == 0
    transport.lose_everything()
    transport.ledger("other/ledger+0a0b0c0d+AAAA")
    code, document = said("doctor")
    redis = finding(document, "server", "redis")
    assert (code, redis["works"]) == (3, False)
    assert "the ledger other/ledger+0a0b0c0d, and this deployment's is" in redis["detail"]
    assert redis["mend"] == "name another database of it in redis_url, such as /1"
    monkeypatch.setattr(RedisBoard, "require_writes", refuses("OutOfMemoryError: no memory"))
    transport.lose_everything()
    assert "maxmemory" in finding(said("doctor")[1], "server", "redis")["mend"]


def answers(monkeypatch: pytest.MonkeyPatch, waiting: int) -> None:
    """A Redis in which so many entries wait, none for long."""
    told: dict[str, object] = {
        "ping": None,
        "backlog": waiting,
        "waiting": [],
        "require_writes": None,
    }
    for method, answer in told.items():
        monkeypatch.setattr(RedisBoard, method, lambda board, answer=answer: answer)


def refuses(problem: str) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise TransportUnavailable(problem)

    return refuse


@pytest.mark.usefixtures("redis_here")
def test_doctor_mends_each_fault_by_its_own_words(said: Any, run: Settings) -> None:
    anchors = run.base_dir / "anchors.jsonl"
    kept = anchors.read_bytes()
    anchors.write_bytes(kept.replace(b"signature", b"signatory"))
    local = finding(said("doctor")[1], "network", "local")
    assert local["mend"] == "put the ledger's own back, or name another (blockchain.local.path)"
    anchors.write_bytes(kept)
    with closing(sqlite3.connect(run.base_dir / "ledger.db")) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON commits "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
        connection.commit()
    assert finding(said("doctor")[1], "database", "ledger")["mend"] == "make room on its disk"


@pytest.mark.usefixtures("redis_here")
def test_doctor_looks_at_a_broker_of_its_own(said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RedisBoard, "backlog", lambda board: 0)
    monkeypatch.setenv("PROVENANCE_REDIS_URL", "redis+cluster://127.0.0.1:1")
    broker = finding(said("doctor")[1], "server", "broker")
    assert broker["detail"].startswith("broker_url: not set, and redis_url is a Redis Cluster")
    monkeypatch.setenv("PROVENANCE_BROKER_URL", "redis://:sesame@127.0.0.1:1/3")
    code, document = said("doctor")
    broker = finding(document, "server", "broker")
    assert (code, broker["works"]) == (3, False)
    assert broker["detail"].startswith("Redis at 127.0.0.1:1/3: ")


@pytest.mark.parametrize(("waiting", "code"), [(4095, 0), (4096, 3), (20_064, 3)])
@pytest.mark.usefixtures("redis_here")
def test_doctor_says_when_shippers_hold_back(
    said: Any, monkeypatch: pytest.MonkeyPatch, waiting: int, code: int
) -> None:
    monkeypatch.setenv("PROVENANCE_REDIS_URL", "redis://127.0.0.1:1/0")
    answers(monkeypatch, waiting)
    found, document = said("doctor")
    redis = finding(document, "server", "redis")
    assert (found, redis["works"]) == (code, code == 0)
    assert f"{waiting} entries wait" in redis["detail"]
    assert ("shippers hold back" in redis["detail"]) == (code == 3)
    assert ("hashing workers" in (redis["mend"] or "")) == (code == 3)


@pytest.mark.usefixtures("redis_here")
def test_doctor_names_unreachable_nodes_and_what_mends_them(
    said: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVENANCE_REDIS_URL", "redis://:sesame@127.0.0.1:1/0")
    file = config(
        ethereum={"url": REFUSED},
        bitcoin={"url": REFUSED, "rpc_user": "u", "rpc_password": "sesame"},
        ipfs={"url": REFUSED},
    )
    code, document = said("doctor", "--config", file)
    assert code == 3
    clients = {"ethereum": "web3", "bitcoin": "bitcoinrpc", "ipfs": "ipfshttpclient"}
    for name, client in clients.items():
        node = finding(document, "network", name)
        assert not node["works"], name
        assert node["client"] == f"{client} {version(client)}"
        assert "127.0.0.1:1" in node["detail"], name
        assert "provenance devnet up" in node["mend"], name
    redis = finding(document, "server", "redis")
    assert not redis["works"]
    assert redis["mend"]
    assert finding(document, "network", "local")["works"]
    assert "sesame" not in json.dumps(document)
    assert cli.main(["doctor", "--config", file]) == 3
    table = capsys.readouterr().out
    assert "FAILS" in table
    assert "bitcoinrpc" in table


def ethereum_stub(method: str, params: list[Value]) -> Value:
    return {"eth_chainId": "0x1", "net_version": "1", "eth_blockNumber": "0x10"}.get(method)


def bitcoin_stub(method: str, params: list[Value]) -> Value:
    if method == "getblockchaininfo":
        return {
            "chain": "main", "blocks": 7, "headers": 7, "bestblockhash": "00" * 32,
            "initialblockdownload": False, "verificationprogress": 1,
        }  # fmt: skip
    answers: dict[str, Value] = {"getblockhash": "00" * 32, "getblockcount": 7}
    return answers.get(method)


@pytest.mark.usefixtures("redis_here")
def test_doctor_tells_another_chain_from_the_configured_one(said: Any) -> None:
    with json_rpc_server(ethereum_stub) as ethereum, json_rpc_server(bitcoin_stub) as bitcoin:
        file = config(
            ethereum={"url": ethereum, "chain_id": 31337},
            bitcoin={"url": bitcoin, "network": "regtest", "rpc_user": "u", "rpc_password": "p"},
        )
        code, document = said("doctor", "--config", file)
    assert code == 3
    wrong = finding(document, "network", "ethereum")
    assert not wrong["works"]
    assert "31337" in wrong["detail"]
    wrong = finding(document, "network", "bitcoin")
    assert not wrong["works"]
    assert "regtest" in wrong["detail"]
    assert "main" in wrong["detail"]


@pytest.mark.usefixtures("redis_here")
def test_doctor_names_a_secret_that_is_not_there(said: Any) -> None:
    file = config(ethereum={"url": REFUSED, "private_key_env": "NOT_SET_ANYWHERE"})
    code, document = said("doctor", "--config", file)
    assert code == 3
    assert "NOT_SET_ANYWHERE" in finding(document, "key", "secrets")["detail"]


@pytest.mark.usefixtures("redis_here")
def test_doctor_says_which_extra_is_missing(said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import provenance.cli.doctor as module

    real = find_spec
    monkeypatch.setattr(module, "find_spec", lambda n: None if n == "celery" else real(n))
    code, document = said("doctor")
    assert code == 3
    assert finding(document, "package", "celery")["mend"] == "pip install 'ml-provenance[workers]'"


@pytest.mark.usefixtures("redis_here")
def test_doctor_sees_a_key_that_others_can_read(said: Any, tmp_path: Path) -> None:
    key = tmp_path / "artifacts" / "ledger.key"
    key.parent.mkdir()
    key.write_text("05" * 32)
    key.chmod(0o644)
    code, document = said("doctor")
    assert code == 3
    assert (
        f"chmod 600 {Path('artifacts') / 'ledger.key'}"
        in (finding(document, "key", "ledger key")["detail"])
    )


DEVNET_USERS = ("provenance.cli.devnet", "provenance.cli.demo", "provenance.demo.run")


class NoDevnet(MetaPathFinder):
    """Finds what an environment without the dev servers finds."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "provenance_devnet":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


# --- contract, devnet, demo, up, ship ----------------------------------------------------


def test_a_contract_is_not_deployed_to_another_chain(capsys: pytest.CaptureFixture[str]) -> None:
    with json_rpc_server(ethereum_stub) as ethereum:
        file = config(ethereum={"url": ethereum, "chain_id": 31337, "private_key": "11" * 32})
        assert cli.main(["contract", "deploy", "--config", file]) == 2
    shown = capsys.readouterr().err
    assert "31337" in shown
    assert shown.count("\n") == 1


def test_a_contract_cannot_be_deployed_to_a_node_that_is_away(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = config(ethereum={"url": REFUSED, "private_key": "11" * 32})
    assert cli.main(["contract", "deploy", "--config", file]) == 3
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_deploy_prints_the_address(
    said: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(interface, "deploy", lambda _: ("0xabc", "0xdef"))
    file = config(ethereum={"url": REFUSED})
    code, document = said("contract", "deploy", "--config", file)
    assert (code, document) == (0, {"contract_address": "0xabc", "transaction_id": "0xdef"})
    assert cli.main(["contract", "deploy", "--config", file]) == 0
    assert '"contract_address": "0xabc"' in capsys.readouterr().out


STATES = [
    ServerState("redis", "redis-server", 7, "redis://127.0.0.1:5/0", {}, True),
    ServerState("ipfs", "", None, "", problem="not installed: [get] it"),
]


def test_devnet_tells_what_runs(
    said: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []
    Path(".devnet").mkdir()

    def states(root: Path, only: object = None, progress: object = None) -> list[ServerState]:
        asked.append(only)
        return STATES

    for action in ("up", "down", "status"):
        monkeypatch.setattr(devnet, action, states)
        code, document = said("devnet", action, "--only", "redis,ipfs")
        assert code == (0 if action == "down" else 3)
        assert document["redis"]["running"] is True
        assert document["ipfs"]["problem"] == "not installed: [get] it"
    assert asked == [["redis", "ipfs"]] * 3
    written = json.loads(Path(".devnet/blockchain_config.json").read_text())
    assert written["redis_url"] == "redis://127.0.0.1:5/0"
    assert cli.main(["devnet", "status"]) == 3
    assert "not installed: [get] it" in capsys.readouterr().out
    monkeypatch.setattr(devnet, "status", lambda root, only: STATES[:1])
    assert said("devnet", "status")[0] == 0


def test_blocks_need_a_chain(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["devnet", "mine", "3"]) == 3
    assert "no chain runs here; start them with: provenance devnet up" in capsys.readouterr().err
    assert not Path(".devnet").exists()


def test_status_of_a_devnet_says_where_blocks_come_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = ServerState("bitcoin", "bitcoind", 7, "http://127.0.0.1:5", {}, True)
    monkeypatch.setattr(devnet, "status", lambda root, only: [chain])
    assert cli.main(["devnet", "status"]) == 0
    assert "blocks come on demand alone, by: provenance devnet mine N" in capsys.readouterr().err
    book = Book(devnet.Devnet(Path()).state_file)
    token = str(processes.born(os.getpid()))
    book.put("miner", Entry("miner", os.getpid(), token, "", {"seconds": "5.0"}))
    assert cli.main(["devnet", "status"]) == 0
    assert "blocks come every 5 s" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["devnet", "status"], ["demo"]])
def test_without_the_dev_servers_one_line_says_how_to_get_them(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] == "provenance_devnet" or name in DEVNET_USERS:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoDevnet(), *sys.meta_path])
    assert cli.main(words) == 2
    line = "provenance_devnet is not installed; get it with: pip install ml-provenance-devnet"
    assert line in capsys.readouterr().err


def test_devnet_install_is_3_where_something_is_missing(
    said: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [
        InstallResult("redis", "redis-server", "installed", Path("r"), 0.1),
        InstallResult("ipfs", "", "missing", None, 0.1, "get it by hand"),
    ]

    def install(root: Path, only: object, progress: devnet.Progress) -> list[InstallResult]:
        progress("redis", "fetching")
        return results

    monkeypatch.setattr(devnet, "install", install)
    code, document = said("devnet", "install")
    assert (code, document["ipfs"]["problem"]) == (3, "get it by hand")
    assert cli.main(["devnet", "install"]) == 3
    shown = capsys.readouterr()
    assert "get it by hand" in shown.out
    assert "fetching" in shown.err
    results.pop()
    assert said("devnet", "install")[0] == 0


def document_of_a_demo(
    detected: bool = True, status: str = "verified", walk: str = "shown", **fsck: list[Any]
) -> dict[str, Any]:
    return {
        "run_id": str(RUN), "root_before": "aa", "root_after": "bb",
        "chain_integrity": status == "verified",
        "rests_on": ["a key"],
        "networks": {
            "local": {"status": status, "transaction_id": "t", "before": "s", "after": "t"}
        },
        "tamper": {"detected": detected, "record": "r/1" if detected else None, "problem": "p"},
        "report_path": "x/report.html",
        "fsck": {"findings": [], "unchecked": [], **fsck},
        "since_block": {"ethereum": 7},
        "beyond": {"approvals": {"status": walk, "line": "two of three"}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (document_of_a_demo(), 0),
        (document_of_a_demo(detected=False), 1),
        (document_of_a_demo(status="incomplete"), 1),
        (document_of_a_demo(findings=[{"kind": "lost", "subject": "s", "detail": "d"}]), 1),
        (document_of_a_demo(unchecked=["ethereum"]), 1),
        (document_of_a_demo(walk="failed"), 1),
    ],
)
def test_demo_is_0_only_where_all_is_verified_and_the_tampering_found(
    document: dict[str, Any],
    code: int,
    said: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = []

    def demo(options: Any, say: Callable[[str, str], None]) -> dict[str, Any]:
        asked.append(options)
        say("train", "epoch [1]")
        return document

    monkeypatch.setattr(demo_command, "run", demo)
    assert said("demo", "--networks", "local,ipfs", "--epochs", "2") == (code, document)
    assert asked[0].networks == ("local", "ipfs")
    assert asked[0].epochs == 2
    assert asked[0].base_dir == Path("artifacts/demo")
    assert cli.main(["demo", "--base-dir", "b"]) == code
    assert asked[1].base_dir == Path("b")
    shown = capsys.readouterr()
    assert "epoch [1]" in shown.err
    assert shown.err.endswith("provenance fsck --base-dir b --since-block ethereum=7\n")
    assert shown.out.rstrip().endswith("report: x/report.html")
    assert ("FAILED as it should: r/1" in shown.out) == document["tamper"]["detected"]


class Stopped:
    """A fleet that was told to stop before it began."""

    def __call__(self) -> bool:
        return True


@pytest.fixture
def empty_fleet(monkeypatch: pytest.MonkeyPatch) -> MemoryTransport:
    transport = MemoryTransport()
    monkeypatch.setattr(up_command, "_until_signalled", Stopped)
    monkeypatch.setattr(redis_streams, "RedisStreams", lambda _: transport)
    sleeper = up.Service("redis", ("sleep", "60"))
    monkeypatch.setattr(up, "embedded_redis", lambda _: (sleeper, "redis://:pw@127.0.0.1:1/0"))
    monkeypatch.setattr(up, "services", lambda settings, port, auth, metrics: [])
    return transport


@pytest.mark.usefixtures("empty_fleet")
def test_up_says_what_runs_and_clears_up(
    said: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = said("up", "--flower")
    assert code == 0
    assert document["flower"].startswith("http://127.0.0.1:")
    assert set(document["services"]) == {"redis"}
    assert not Path(f"/proc/{document['services']['redis']}").exists()
    assert not (tmp_path / "artifacts" / "run" / "up.json").exists()
    assert (tmp_path / "artifacts" / "ledger.key").exists()
    assert (tmp_path / "artifacts" / "ledger.db").exists()
    assert cli.main(["up", "--flower-port", "5555"]) == 0
    shown = capsys.readouterr().err
    assert "http://127.0.0.1:5555" in shown
    assert "stopped" in shown
    assert ":pw@" not in shown
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["up", "--flower-port", port]) == 2
    assert f"--flower-port: {port} is in use" in capsys.readouterr().err


@pytest.mark.usefixtures("empty_fleet")
def test_up_goes_on_where_its_state_finds_no_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sending.ledger_signer(load(None, "artifacts"))
    monkeypatch.setattr(files, "replace", full)
    assert cli.main(["up"]) == 0
    assert "up.json: cannot be written: No space left on device" in capsys.readouterr().err


@pytest.mark.usefixtures("empty_fleet")
def test_up_beside_another_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    with up.only_fleet(Path("artifacts")):
        assert cli.main(["up"]) == 2
    assert "another `provenance up` runs here already" in capsys.readouterr().err


def test_up_without_its_packages_says_how_to_get_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(extra: str) -> None:
        raise MissingExtraError("celery", extra)

    monkeypatch.setattr(up, "require_extra", missing)
    assert cli.main(["up"]) == 2
    assert "pip install 'ml-provenance[workers]'" in capsys.readouterr().err


def test_up_refuses_a_redis_of_another_deployment_or_a_cluster_without_a_broker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    transport = MemoryTransport()
    transport.ledger("other/ledger+0a0b0c0d+AAAA")
    monkeypatch.setattr(sending, "open_transport", lambda _: transport)
    monkeypatch.setenv("PROVENANCE_REDIS_URL", "redis://127.0.0.1:1/0")
    assert cli.main(["up"]) == 2
    line = " ".join(capsys.readouterr().err.split())
    assert "carries the events of the ledger other/ledger+0a0b0c0d, and this deployment's" in line
    monkeypatch.setenv("PROVENANCE_REDIS_URL", "redis+cluster://127.0.0.1:1")
    assert cli.main(["up"]) == 2
    line = " ".join(capsys.readouterr().err.split())
    assert "broker_url: not set, and redis_url is a Redis Cluster" in line


def test_ship_once_tells_what_it_shipped(said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from provenance import ProvenanceTracker

    tracker = ProvenanceTracker("artifacts")
    tracker.track_epoch(1, {"loss": 1.0})
    tracker.store_merkle_on_blockchain_after_training()
    transport = MemoryTransport()
    monkeypatch.setattr(sending, "open_transport", lambda _: transport)
    code, document = said("ship", "--once")
    assert code == 0
    assert document["events"] == 6
    assert transport.backlog() == document["batches"] > 0


def test_ship_without_redis_says_what_is_not_set(capsys: pytest.CaptureFixture[str]) -> None:
    Path("artifacts").mkdir()
    assert cli.main(["ship"]) == 2
    assert "redis_url: not set" in capsys.readouterr().err


def test_ship_once_beside_another_shipper_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from provenance.app import ship

    def busy(settings: Settings, once: bool, ledger_keys: list[str]) -> dict[str, int]:
        raise InputError("another shipper (process 7) already serves it")

    monkeypatch.setattr(ship, "run", busy)
    Path("artifacts").mkdir()
    assert cli.main(["ship", "--once"]) == 2
    assert "another shipper" in capsys.readouterr().err


def test_verify_of_a_report_folder_finds_the_evidence_in_it(run: Settings, said: Any) -> None:
    page = write_report(run, "latest")
    shutil.rmtree(run.base_dir / "spool", ignore_errors=True)
    code, document = said("verify", str(page.parent), "--offline")
    assert (code, document["source"]["kind"]) == (3, "bundle")


def test_migrate_makes_the_database_that_reading_commands_want(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "ledger.db"
    database.touch()
    base = ["--base-dir", str(tmp_path)]
    assert cli.main(["status", *base]) == 2
    assert "migrate it first (provenance migrate)" in capsys.readouterr().err
    assert cli.main(["migrate", "--json", *base]) == 0
    assert json.loads(capsys.readouterr().out) == {"revision": "0001", "was": None}
    assert cli.main(["migrate", *base]) == 0
    assert "revision 0001 already" in capsys.readouterr().err
    assert cli.main(["status", "--json", *base]) == 0
