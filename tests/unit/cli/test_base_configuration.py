"""The configuration that a base directory has, as every command takes it."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pytest

from provenance import cli
from provenance.app import up
from provenance.app.base_directory import leave_config
from provenance.cli import up as up_command
from provenance.cli.output import settings_of
from provenance.stores import redis_streams
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.redis_board import RedisBoard

NETWORKS = ("bitcoin", "ethereum", "ipfs")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PROVENANCE_")]:
        monkeypatch.delenv(name)


def configuration(path: Path, network: str) -> Path:
    chain = {"networks": [network], network: {"url": "http://127.0.0.1:1", "timeout": 1}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"blockchain": chain}))
    return path


def taken(*words: str) -> str:
    """The one network of the settings that a command goes by."""
    arguments = cli.parser().parse_args(list(words))
    (network,) = settings_of(arguments, secrets=False).blockchain.networks
    return network


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    ["verify", "report latest", "status", "doctor", "fsck", "up", "ship", "bundle latest -o x"],
)
def test_flag_then_environment_then_base_directory(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*command.split(), "--base-dir", "base"]
    assert taken(*words) == "local"
    configuration(Path("base/run/config.json"), "ipfs")
    assert taken(*words) == "ipfs"
    monkeypatch.setenv("PROVENANCE_CONFIG", str(configuration(Path("env.json"), "bitcoin")))
    assert taken(*words) == "bitcoin"
    flag = configuration(Path("flag.json"), "ethereum")
    assert taken(*words, "--config", str(flag)) == "ethereum"


class Looking:
    """Ends a fleet, and notes what `status` says while it runs."""

    seen: list[dict[str, Any]]

    def __call__(self) -> bool:
        arguments = argparse.Namespace(config=None, base_dir=Path("artifacts"))
        settings = settings_of(arguments, secrets=False)
        self.seen.append({"redis": settings.redis_url, "networks": settings.blockchain.networks})
        return True


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> Looking:
    monkeypatch.setattr(Looking, "seen", [], raising=False)
    monkeypatch.setattr(up_command, "_until_signalled", Looking)
    monkeypatch.setattr(redis_streams, "RedisStreams", lambda _: MemoryTransport())
    sleeper = up.Service("redis", ("sleep", "60"))
    monkeypatch.setattr(up, "embedded_redis", lambda _: (sleeper, "redis://:pw@127.0.0.1:1/0"))
    monkeypatch.setattr(up, "services", lambda settings, port, auth, metrics: [])
    return Looking()


@pytest.mark.slow
def test_commands_see_the_redis_and_the_configuration_of_up(
    looking: Looking, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = configuration(Path("mine.json"), "ipfs")
    assert cli.main(["up", "--json", "--config", str(path)]) == 0
    assert ":pw@" not in capsys.readouterr().out
    assert looking.seen == [{"redis": "redis://:pw@127.0.0.1:1/0", "networks": ("ipfs",)}]
    assert taken("status") == "ipfs", "it stays when the fleet is gone"
    other = configuration(Path("other.json"), "bitcoin")
    assert cli.main(["up", "--config", str(other)]) == 0
    assert cli.main(["up"]) == 0
    assert [seen["networks"] for seen in looking.seen[1:]] == [("bitcoin",)] * 2
    # A fleet that was killed leaves its state, and no lock.
    state = Path("artifacts/run/up.json")
    state.write_text('{"redis_url": "redis://:pw@127.0.0.1:1/0"}')
    state.chmod(0o600)
    transport = MemoryTransport()
    transport.append([b"one"])
    for look in ("ping", "require_writes", "waiting"):
        monkeypatch.setattr(RedisBoard, look, lambda _: [])
    monkeypatch.setattr(redis_streams, "RedisStreams", lambda _: transport)
    for held in (False, True):
        with up.only_fleet(Path("artifacts" if held else "elsewhere")):
            cli.main(["status"])  # that no worker is there is told too
        assert ("stream: 1 batch" in capsys.readouterr().out) == held


def test_a_configuration_of_the_base_directory_is_never_replaced() -> None:
    own = configuration(Path("base/run/config.json"), "ipfs")
    text = own.read_text()
    leave_config(Path("base"), configuration(Path("mine.json"), "bitcoin"))
    assert (own.is_symlink(), own.read_text()) == (False, text)


def test_the_home_is_known_in_a_flag_and_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    configuration(Path("base/run/config.json"), "ipfs")
    assert taken("status", "--base-dir=~/base") == "ipfs"
    monkeypatch.setenv("PROVENANCE_BASE_DIR", "~/base")
    assert taken("status") == "ipfs"
    configuration(Path("own.json"), "ethereum")
    monkeypatch.setenv("PROVENANCE_CONFIG", "~/own.json")
    assert taken("status") == "ethereum"
