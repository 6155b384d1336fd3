"""The devnet with its real servers: installed if need be, brought up, asked, mined on, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from provenance_devnet import (
    DEV_CHAIN_ADDRESS,
    NAMES,
    Devnet,
    InstallResult,
    ServerState,
    bitcoin_rpc,
    mine_bitcoin,
    mine_ethereum,
    rpc,
)
from tests.support.paths import ROOT

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(900)]

OTHER_ADDRESS = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"


@dataclass
class Run:
    """A devnet of this module's own."""

    net: Devnet
    servers: dict[str, ServerState]

    def need(self, name: str) -> ServerState:
        """The server, up; a laptop without it skips, CI fails."""
        state = self.servers[name]
        if not state.running:
            _missing(f"{name}: {state.problem}")
        return state


def _missing(line: str) -> None:
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(line)
    pytest.skip(line)


@pytest.fixture(scope="module")
def installed() -> list[InstallResult]:
    return Devnet(ROOT).install()


@pytest.fixture(scope="module")
def run(installed: list[InstallResult], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("devnet")
    net = Devnet(ROOT, folder)
    servers = {each.name: each for each in net.up()}
    yield Run(net, servers)
    net.down()
    assert _processes_of(folder) == []


def _processes_of(folder: Path) -> list[str]:
    """Every process that was told of the folder, by argument or environment, or works in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            known += os.fsencode(os.readlink(process / "cwd"))
        except OSError:
            continue
        if int(process.name) != os.getpid() and str(folder).encode() in known:
            found.append(f"{process.name}: {known[:200]!r}")
    return found


def _redis(state: ServerState, command: str) -> str:
    where = urlsplit(state.url)
    with socket.create_connection((where.hostname, where.port), timeout=5) as link:
        link.sendall(command.encode() + b"\r\n")
        return link.recv(4096).decode().strip()


def _transaction(url: str) -> str:
    call: dict[str, rpc.Json] = {"from": DEV_CHAIN_ADDRESS, "to": OTHER_ADDRESS, "value": "0x1"}
    return str(rpc.json_rpc(url, "eth_sendTransaction", [call]))


@pytest.mark.parametrize("name", NAMES)
def test_installed_or_told_how(installed: list[InstallResult], name: str) -> None:
    result = next(each for each in installed if each.name == name)
    if not result.ok:
        _missing(str(result.problem))
    assert result.path is not None
    ran = subprocess.run(
        [result.path, "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip()


def test_a_second_install_is_instant(installed: list[InstallResult]) -> None:
    began = time.monotonic()
    again = Devnet(ROOT).install([each.name for each in installed if each.ok])
    assert {each.how for each in again} <= {"on PATH", "already installed"}
    assert time.monotonic() - began < 2


def test_redis_answers(run: Run) -> None:
    assert _redis(run.need("redis"), "PING") == "+PONG"


def test_ethereum_serves_its_chain_and_mines(run: Run) -> None:
    state = run.need("ethereum")
    assert int(str(rpc.json_rpc(state.url, "eth_chainId")), 16) == int(state.detail["chain_id"])
    rich = rpc.json_rpc(state.url, "eth_getBalance", [DEV_CHAIN_ADDRESS, "latest"])
    assert int(str(rich), 16) > 10**18
    before = rpc.block_number(state.url)
    assert mine_ethereum(state.url, 3) >= before + 3


def test_bitcoin_is_regtest_with_money_and_mines(run: Run) -> None:
    state = run.need("bitcoin")
    info = bitcoin_rpc(state, "getblockchaininfo")
    assert isinstance(info, dict)
    assert info["chain"] == "regtest"
    assert Path(state.detail["cookie_file"]).stat().st_mode & 0o077 == 0
    balance = bitcoin_rpc(state, "getbalance", wallet=True)
    assert isinstance(balance, float)
    assert balance > 0
    wallet = bitcoin_rpc(state, "getwalletinfo", wallet=True)
    assert isinstance(wallet, dict)
    assert (wallet["walletname"], wallet["descriptors"]) == ("provenance", True)
    assert len(mine_bitcoin(state, 2)) == 2
    assert bitcoin_rpc(state, "getblockcount") == int(str(info["blocks"])) + 2
    indexes = bitcoin_rpc(state, "getindexinfo")
    assert isinstance(indexes, dict)
    assert "txindex" in indexes


def _heights(run: Run) -> dict[str, int]:
    return {
        "ethereum": rpc.block_number(run.need("ethereum").url),
        "bitcoin": int(str(bitcoin_rpc(run.need("bitcoin"), "getblockcount"))),
    }


def test_both_chains_mine_at_once_and_by_themselves(run: Run) -> None:
    before = _heights(run)
    assert run.net.mines_every() == 0.0
    assert run.net.mine(3) == {name: height + 3 for name, height in before.items()} == _heights(run)
    run.net.mine_every(0.1)
    run.net.mine_every(0.2)  # takes the other's place
    assert run.net.mines_every() == 0.2
    deadline = time.monotonic() + 30
    while not all(_heights(run)[name] >= before[name] + 6 for name in before):
        assert time.monotonic() < deadline, run.net.log("miner").read_text()
        time.sleep(0.1)
    run.net.mine_every(0)
    assert run.net.mines_every() == 0.0
    assert not any("miner" in line for line in _processes_of(run.net.state_dir))


def test_ipfs_says_its_version_and_knows_nobody(run: Run) -> None:
    state = run.need("ipfs")
    version = rpc.ipfs_call(state.url, "version")
    assert isinstance(version, dict)
    assert version["Version"]
    peers = rpc.ipfs_call(state.url, "swarm/peers")
    assert isinstance(peers, dict)
    assert not peers.get("Peers")


def test_status_asks_each(run: Run) -> None:
    for state in run.net.status():
        assert state.running == run.servers[state.name].running
        if state.running:
            assert state == run.servers[state.name]


def test_a_restart_keeps_addresses_and_data(run: Run) -> None:
    redis, ethereum, bitcoin = (run.need(name) for name in ("redis", "ethereum", "bitcoin"))
    _redis(redis, "SET kept yes")
    transaction = _transaction(ethereum.url)
    mine_ethereum(ethereum.url, 1)
    receipt = rpc.json_rpc(ethereum.url, "eth_getTransactionReceipt", [transaction])
    assert isinstance(receipt, dict)
    height = rpc.block_number(ethereum.url)
    genesis = rpc.json_rpc(ethereum.url, "eth_getBlockByNumber", ["0x0", False])
    tip = bitcoin_rpc(bitcoin, "getbestblockhash")
    run.net.mine_every(600)

    run.net.down()
    assert _processes_of(run.net.state_dir) == []
    again = {each.name: each for each in run.net.up()}

    for name, before in run.servers.items():
        assert again[name].running == before.running
        assert again[name].url == before.url
    run.servers = again
    assert _redis(again["redis"], "GET kept") == "$3\r\nyes"
    assert rpc.block_number(ethereum.url) >= height
    assert rpc.json_rpc(ethereum.url, "eth_getBlockByNumber", ["0x0", False]) == genesis
    mine_ethereum(ethereum.url, 1)
    latest = rpc.json_rpc(ethereum.url, "eth_getBlockByNumber", ["latest", False])
    assert isinstance(latest, dict)
    assert abs(int(str(latest["timestamp"]), 16) - time.time()) < 60, "its clock is not ours"
    assert rpc.json_rpc(ethereum.url, "eth_getTransactionReceipt", [transaction]) == receipt
    assert bitcoin_rpc(again["bitcoin"], "getbestblockhash") == tip
    assert mine_bitcoin(again["bitcoin"], 1)


def test_a_killed_server_comes_back(run: Run) -> None:
    run.net.mine_every(0.2)
    states = [each for each in run.net.status() if each.running]
    for state in states:
        assert state.pid is not None
        os.killpg(state.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while run.net.mines_every():  # it ends with the chains
        assert time.monotonic() < deadline
        time.sleep(0.1)
    again = {each.name: each for each in run.net.up()}
    for state in states:
        assert again[state.name].running, again[state.name].problem
        assert again[state.name].pid != state.pid
    run.servers = again


@pytest.mark.parametrize("after", [0.3, 1.2])
def test_an_interrupted_up_leaves_no_process(
    installed: list[InstallResult], tmp_path: Path, after: float
) -> None:
    if not any(each.ok for each in installed):
        _missing("no server is installed")
    folder = tmp_path / "state"
    code = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from provenance_devnet import Devnet\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "print('ready', flush=True)\n"
        "Devnet(Path(sys.argv[1]), Path(sys.argv[2])).up()\n"
    )
    command = [sys.executable, "-c", code, str(ROOT), str(folder)]
    starter = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert starter.stdout is not None
    with starter.stdout:
        assert starter.stdout.readline() == b"ready\n"
        time.sleep(after)
        starter.send_signal(signal.SIGINT)
        assert starter.wait(60) != 0
    assert _processes_of(folder) == []


def test_ephemeral_servers_leave_nothing(installed: list[InstallResult], tmp_path: Path) -> None:
    with Devnet(ROOT).running(["redis", "ethereum"], ephemeral=True, scratch=tmp_path) as servers:
        (folder,) = tmp_path.iterdir()
        for state in servers.values():
            if not state.running:
                _missing(f"{state.name}: {state.problem}")
        assert len(_processes_of(folder)) == 2
    assert _processes_of(folder) == []
    assert not folder.exists()
