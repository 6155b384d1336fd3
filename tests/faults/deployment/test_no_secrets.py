"""After a full run with every password and key set, none of them is anywhere it can be read.

Looked through: all files of the deployment but those that are there to hold a secret, logs
and reports among them; all that Redis was told (tasks with decoded bodies); the command line
of every process while it ran; what the commands print. Outages belong to the run: an error
message is where a URL with a password would show.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import redis
from eth_account import Account

from provenance.app.processes import free_ports
from provenance.capture.keys import RunKeys
from provenance.ports.values import AnchorState
from tests.faults.support.harness import World
from tests.faults.support.processes import until
from tests.support.paths import ROOT

TRAINING = """
import sys, time
from pathlib import Path
from provenance import ProvenanceTracker
tracker = ProvenanceTracker(sys.argv[1], Path(sys.argv[1]) / "config.json")
tracker.track_data([1.0, 2.0], [3.0])
tracker.store_merkle_on_blockchain_before_training({"epochs": 3})
for epoch in range(1, 4):
    tracker.track_epoch(epoch, {"loss": 1 / epoch})
    time.sleep(0.1)
tracker.store_merkle_on_blockchain_after_training({"accuracy": 1.0})
"""

# Files whose purpose is to hold a secret, all of mode 0600.
KEEPERS = ("ledger.key", "run.key", "keystore.json")


class Secrets:
    """Secret values, and every form in which one could show."""

    def __init__(self) -> None:
        self.forms: dict[str, set[bytes]] = {}

    def add(self, name: str, value: str | bytes) -> None:
        raw = value.encode() if isinstance(value, str) else value
        forms = {raw, raw.hex().encode(), base64.b64encode(raw).rstrip(b"=")}
        if isinstance(value, str):
            forms.add(quote(value, safe="").encode())
        else:
            forms |= {str(int.from_bytes(raw, "big")).encode(), raw.hex().upper().encode()}
        self.forms.setdefault(name, set()).update(forms)

    def found_in(self, data: bytes) -> set[str]:
        return {name for name, forms in self.forms.items() if any(f in data for f in forms)}


@contextmanager
def watched_processes(known: Secrets) -> Iterator[set[str]]:
    """Names of the secrets that stood on a command line while the block ran."""
    shown: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            for entry in os.scandir("/proc"):
                if entry.name.isdigit():
                    with suppress(OSError):
                        shown.update(known.found_in(Path(entry.path, "cmdline").read_bytes()))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield shown
    finally:
        over.set()
        thread.join()


@contextmanager
def monitored(client: redis.Redis) -> Iterator[list[str]]:
    """Every command that the server was sent, bodies of task messages decoded."""
    heard: list[str] = []

    def listen() -> None:
        with suppress(redis.RedisError, OSError, ValueError), client.monitor() as monitor:  # type: ignore[no-untyped-call]  # the library has no types
            for command in monitor.listen():
                text = command["command"]
                heard.append(text)
                for body in re.findall(r'body\W+([A-Za-z0-9+/=]{8,})"', text):
                    with suppress(ValueError):
                        heard.append(base64.b64decode(body).decode("utf-8", "replace"))

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    assert until(lambda: any("CLIENT" in h or "PING" in h for h in _poked(client, heard)), 10)
    yield heard


def _poked(client: redis.Redis, heard: list[str]) -> list[str]:
    client.ping()
    return heard


def funded_keystore(folder: Path, password: str, ethereum_url: str, known: Secrets) -> Path:
    """A fresh key, encrypted, with money on the test chain."""
    account = Account.create()
    known.add("ethereum key", bytes(account.key))
    path = folder / "keystore.json"
    path.touch(0o600)
    path.write_text(json.dumps(Account.encrypt(account.key, password, iterations=2)))
    call = {
        "jsonrpc": "2.0", "id": 1, "method": "anvil_setBalance",
        "params": [account.address, hex(10**20)],
    }  # fmt: skip
    request = urllib.request.Request(
        ethereum_url, json.dumps(call).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert "error" not in json.load(answer)
    return path


def cli(world: World, *arguments: str, **env: str) -> bytes:
    """What a command prints, on both streams."""
    done = subprocess.run(
        [
            sys.executable, "-m", "provenance.cli", *arguments,
            "--base-dir", str(world.base), "--config", str(world.config),
        ],
        capture_output=True, env={**world.env, **env}, cwd=ROOT, timeout=120,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def files(base: Path) -> dict[str, bytes]:
    found = {}
    for path in base.rglob("*"):
        if path.is_file() and path.name not in KEEPERS:
            with suppress(FileNotFoundError):
                found[str(path.relative_to(base))] = path.read_bytes()
    return found


@pytest.mark.nodes
def test_no_secret_is_in_logs_tasks_reports_evidence_or_arguments(
    tmp_path: Path,
    make_world: Callable[..., World],
    ethereum_url: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    known = Secrets()
    with suppress(pytest.skip.Exception):  # PostgreSQL where it is here; SQLite has no password
        database = str(request.getfixturevalue("postgres_url"))
        monkeypatch.setenv("PROVENANCE_DATABASE_URL", database)
        known.add("database password", str(urlsplit(database).password))
    passwords = {
        "PROVENANCE_ETHEREUM_KEYSTORE_PASSWORD": "keystore " + secrets.token_hex(8),
        "PROVENANCE_BITCOIN_PASSWORD": "bitcoin-" + secrets.token_hex(8),
        "PROVENANCE_IPFS_AUTH": "user:ipfs-" + secrets.token_hex(8),
    }
    for name, value in passwords.items():
        known.add(name, value)
        monkeypatch.setenv(name, value)
    keystore = funded_keystore(
        tmp_path, passwords["PROVENANCE_ETHEREUM_KEYSTORE_PASSWORD"], ethereum_url, known
    )
    (closed,) = free_ports(1)

    world = make_world(
        networks={
            "ethereum": {
                "url": ethereum_url, "chain_id": 31337, "confirmations": 1,
                "keystore_file": str(keystore),
            },
            # Nobody is there: their errors are part of the logs.
            "bitcoin": {
                "url": f"http://127.0.0.1:{closed}", "network": "regtest", "rpc_user": "u",
                "wallet": "w", "timeout": 1, "retry_cap": 1,
            },
            "ipfs": {"url": f"http://127.0.0.1:{closed}", "timeout": 1, "retry_cap": 1},
        },
        more={"redis_url": None},
    )  # fmt: skip
    known.add("redis password", world.redis.password)
    known.add("ledger key", bytes.fromhex((world.base / "ledger.key").read_text().strip()))
    printed: dict[str, bytes] = {}
    with watched_processes(known) as shown, monitored(world.redis.client()) as heard:
        world.start()
        trainer = world.trainer(code=TRAINING)
        keys = world.base / "spool" / str(trainer.run) / "run.key"
        assert until(keys.exists, 20, 0.01)
        made = json.loads(keys.read_text())
        known.add("run key", bytes.fromhex(made["seed"]))
        known.add("salt key", RunKeys(trainer.run, bytes.fromhex(made["seed"])).salt)
        trainer.finish()
        world.wait_sealed(trainer.run, 60)

        def anchored() -> bool:
            with world.store().snapshot() as tx:
                final = {row.network for row in tx.anchors(states=[AnchorState.FINAL])}
                tried = {row.network for row in tx.anchors() if row.attempts}
            return final >= {"ethereum", "local"} and tried >= {"bitcoin", "ipfs"}

        assert until(anchored, 60), "the run was not anchored as far as it can be"
        run = str(trainer.run)
        for arguments in (
            ["status"], ["status", run, "--json"], ["verify", run], ["doctor"],
            ["events", "parked"], ["report", run, "-o", str(world.base / "report")],
        ):  # fmt: skip
            printed[" ".join(arguments)] = cli(world, *arguments)
        # Redis comes back with another password: everybody is refused, and says so.
        world.redis.kill()
        right, world.redis.password = world.redis.password, secrets.token_hex(12)
        world.redis.url = world.redis.url.replace(right, world.redis.password)
        known.add("new redis password", world.redis.password)
        world.redis.start()
        time.sleep(3)
        printed["refused"] = cli(world, "status") + cli(world, "ship", "--once")
        wrong = "postgresql://someone:wrong-word@127.0.0.1:1/none"
        known.add("wrong password", "wrong-word")
        printed["no database"] = cli(world, "status", PROVENANCE_DATABASE_URL=wrong)
        world.stop()
    end_background_shipper(world)
    looked = files(world.base) | {"redis": "\n".join(heard).encode()} | printed
    found = {name: known.found_in(data) for name, data in looked.items()}
    assert {name: what for name, what in found.items() if what} == {}
    assert shown == set()
    # What was looked through is what it should be.
    assert any("workers.anchoring.publish" in line for line in heard)
    assert any("prov:events" in line for line in heard)
    assert (world.base / "report" / "report.html").exists()
    assert any(name.startswith("report/evidence/records/") for name in looked)
    assert b"refuses the user or password" in printed["refused"]
    for name in ("hashing", "anchor-ethereum", "anchor-bitcoin", "confirm"):
        assert looked[f"log/{name}.log"], name


def end_background_shipper(world: World) -> None:
    with suppress(OSError, ValueError):
        os.kill(int((world.base / "spool" / "shipper.lock").read_text()), 9)


def test_the_search_finds_what_is_there() -> None:
    """In every form, or the test above proves nothing."""
    known = Secrets()
    known.add("word", "pass word")
    known.add("key", bytes(range(32)))
    number = int.from_bytes(bytes(range(32)), "big")
    for data in (b"x pass word", b"pass%20word", base64.b64encode(b"pass word")):
        assert known.found_in(data) == {"word"}
    for data in (bytes(range(32)), bytes(range(32)).hex().encode(), str(number).encode()):
        assert known.found_in(b"a" + data + b"b") == {"key"}
