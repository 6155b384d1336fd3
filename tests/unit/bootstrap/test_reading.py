"""Reading leaves no trace: no key, no database, no log, no lock, in any base directory."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provenance import cli, files
from provenance.app.bundle import make_bundle
from provenance.app.verify import verify_path, verify_run
from provenance.bootstrap import reading, sending
from provenance.errors import UsageError
from provenance.settings import Settings, load
from tests.support.nodes.ethereum_chain import KEYS
from tests.support.verify_world import RUN, World, story

pytestmark = pytest.mark.slow

NOBODY = 65534
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("verify", "latest"),
    ("verify", "latest", "--offline", "--require", "key"),
    ("report", "latest", "-o", "{out}/report"),
    ("bundle", "latest", "-o", "{out}/bundle"),
    ("fsck",),
    ("status",),
    ("status", "latest"),
    ("events", "parked"),
    ("log", "prove", "latest"),
    ("doctor",),
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A deployment with an SQLite file, the local network and one finished run."""
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


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may reach and write to."""
    folder = Path(tempfile.mkdtemp(prefix="prov-"))
    folder.chmod(0o777)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o777)
    shutil.rmtree(folder)


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file and folder with its time of change, size and mode."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        found[str(path)] = (status.st_mtime_ns, status.st_size, status.st_mode)
    return found


def run_all(base: Path, out: Path) -> list[int]:
    """The exit codes of all reading commands."""
    out.mkdir(exist_ok=True)
    return [
        cli.main([*(word.format(out=out) for word in command), "--base-dir", str(base)])
        for command in COMMANDS
    ]


def test_no_command_that_reads_changes_the_base_directory(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But doctor, which tries what the workers do, where its user may."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sending, "require_commits", lambda *_: True)
    monkeypatch.setattr(files, "require_room", lambda _: None)
    before = listing(settings.base_dir)
    assert run_all(settings.base_dir, tmp_path / "out") == [0] * len(COMMANDS)
    assert listing(settings.base_dir) == before
    assert (tmp_path / "out" / "report" / "report.html").exists()


def test_a_read_only_base_directory_is_enough(
    settings: Settings, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the user nobody where the tests run as root, whom no mode stops."""
    monkeypatch.chdir(open_folder)
    base = open_folder / "evidence"
    shutil.copytree(settings.base_dir, base)
    run_all(base, open_folder / "first")  # and what is imported late is imported
    for path in [base, *base.rglob("*")]:
        if os.getuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        path.chmod(path.stat().st_mode & ~0o222)
    before = listing(base)
    child = os.fork()
    if child == 0:
        code = 99
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            (open_folder / "codes.json").write_text(json.dumps(run_all(base, open_folder / "out")))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert json.loads((open_folder / "codes.json").read_text()) == [0] * len(COMMANDS)
    assert listing(base) == before


def test_an_empty_base_directory_stays_empty(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = make_bundle(settings, "latest", tmp_path / "bundle").path
    reader = tmp_path / "reader"
    codes = [run_all(reader, tmp_path / "out") for _ in range(2)]
    assert codes[0] == codes[1]
    for _ in range(2):
        assert cli.main(["verify", str(bundle), "--base-dir", str(reader)]) == 3
    assert not reader.exists()


def test_a_second_verification_says_what_the_first_said(settings: Settings, tmp_path: Path) -> None:
    """Evidence copied without the ledger's key: it cannot be checked whole, and is honest."""
    copy = load(None, tmp_path / "copy")
    shutil.copytree(settings.base_dir, copy.base_dir)
    (copy.base_dir / "ledger.key").unlink()
    first, second = verify_run(copy, "latest"), verify_run(copy, "latest")
    assert first.outcome == second.outcome == "consistent"
    assert first.findings == second.findings == ()
    assert not (copy.base_dir / "ledger.key").exists()
    assert verify_run(settings, "latest").outcome == "verified"


def test_a_bundle_of_another_deployment_is_not_looked_for_in_this_ones_file(
    settings: Settings, tmp_path: Path
) -> None:
    mine = load(None, tmp_path / "mine")
    network = sending.open_networks(mine)["local"]
    network.broadcast(network.sign(network.draft(b"MLP1" + bytes(32)), None))
    bundle = make_bundle(settings, "latest", tmp_path / "bundle").path
    report = verify_path(mine, bundle, offline=False)
    assert (report.outcome, report.run) == ("consistent", RUN)
    check = report.networks["local"]["after"]
    assert (check.status, check.reason) == (
        "unreachable",
        "the local anchor file on this machine is of another ledger",
    )


@pytest.mark.parametrize("name", ["ethereum", "bitcoin", "ipfs", "local"])
def test_a_network_for_reading_neither_signs_nor_sends(
    name: str, settings: Settings, tmp_path: Path
) -> None:
    node = {"url": "http://127.0.0.1:1"}
    chain: dict[str, Any] = {
        "ethereum": {**node, "private_key": KEYS[0]},
        "bitcoin": {**node, "rpc_user": "u", "rpc_password": "p"},
        "ipfs": node,
    }
    configured = load({"blockchain": chain}, settings.base_dir)
    network: Any = reading.open_network(configured, name)
    for method in ("next_nonce", "draft", "sign", "broadcast"):
        with pytest.raises(UsageError, match="opened for reading"):
            getattr(network, method)(b"MLP1" + bytes(32))
    if name == "ethereum":
        assert network.sender is None
    network.close()


def test_only_the_local_network_makes_the_ledgers_key(tmp_path: Path) -> None:
    config = {"blockchain": {"ipfs": {"url": "http://127.0.0.1:1"}}}
    sending.open_network(load(config, tmp_path), "ipfs").close()
    assert not list(tmp_path.iterdir())


def test_a_key_that_is_not_this_users_to_read_is_none(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reading.ledger_key(settings) == sending.ledger_signer(settings).verifier
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert reading.ledger_key(settings) is None
