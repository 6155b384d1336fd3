"""One class per kind of server: how it is started, when it is ready, how long it may take to stop.

A node's life: ``prepare`` lays its data folder out, ``launch`` names the command and the address,
the supervisor starts it and asks ``probe`` until that no longer raises, then ``settle`` does what
only a running server can do (the wallet, the first blocks). All of it is repeatable on a data
folder that already served.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from provenance import files
from provenance.errors import NetworkUnavailable
from provenance_devnet import rpc
from provenance_devnet.processes import run_tool
from provenance_devnet.servers import DEV_CHAIN_ADDRESS, WALLET, ServerState

_WALLET_NOT_FOUND = -18
_WALLET_ALREADY_LOADED = -35


@dataclass(frozen=True)
class Launch:
    """A command that serves ``url`` until it is told to end."""

    argv: Sequence[str]
    url: str
    detail: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


class Node(ABC):
    """A server that can be started over one data folder.

    Args:
        program: What to run.
        data: The server's own folder; it is made if need be.
        flags: More command-line flags, for tests that want the server otherwise.
    """

    kind: ClassVar[str]
    ports: ClassVar[int] = 1
    ready_within: ClassVar[float] = 30.0
    stop_within: ClassVar[float] = 10.0

    def __init__(self, program: Path, data: Path, flags: Sequence[str] = ()) -> None:
        self.program = program
        self.data = data
        self.flags = tuple(flags)

    def prepare(self, cancel: threading.Event) -> None:
        """Lays the data folder out."""
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)

    @abstractmethod
    def launch(self, ports: Sequence[int]) -> Launch:
        """The command on those ports."""

    @staticmethod
    @abstractmethod
    def probe(state: ServerState, timeout: float) -> None:
        """Asks the server something real.

        Raises:
            ProvenanceError: It is not ready, or not what it should be.
        """

    def settle(self, state: ServerState) -> Mapping[str, str]:
        """Does what only a running server can do; returns what to add to ``detail``."""
        return {}


class RedisServer(Node):
    """redis-server, with an append-only file so that a restart keeps the streams."""

    kind = "redis-server"

    def launch(self, ports: Sequence[int]) -> Launch:
        """The command line and the URL, on these ports."""
        port = str(ports[0])
        argv = [str(self.program), "--bind", "127.0.0.1", "--port", port, "--daemonize", "no"]
        argv += ["--dir", str(self.data), "--appendonly", "yes", "--save", "", *self.flags]
        return Launch(argv, f"redis://127.0.0.1:{port}/0")

    @staticmethod
    def probe(state: ServerState, timeout: float) -> None:
        """Ask the server; raises until it answers."""
        rpc.redis_ping(state.url, timeout=timeout)


class _Ethereum(Node):
    @staticmethod
    def probe(state: ServerState, timeout: float) -> None:
        """Ask the server; raises until it answers."""
        found = int(str(rpc.json_rpc(state.url, "eth_chainId", timeout=timeout)), 16)
        if str(found) != state.detail.get("chain_id", str(found)):
            raise NetworkUnavailable(f"{state.url} serves chain {found}")


class Anvil(_Ethereum):
    """anvil with instant mining: a transaction is mined as it comes, account 0 is rich.

    The chain lives in memory and is written to ``state.json`` every minute and at the end. A
    genesis block is made at every start; with the time of the first it is the same block.
    """

    kind = "anvil"

    def launch(self, ports: Sequence[int]) -> Launch:
        """The command line and the URL, on these ports."""
        port = str(ports[0])
        argv = [str(self.program), "--host", "127.0.0.1", "--port", port]
        argv += ["--timestamp", self._genesis_time()]
        argv += ["--state", str(self.data / "state.json"), "--state-interval", "60"]
        argv += ["--cache-path", str(self.data / "cache"), "--quiet", *self.flags]
        detail = {"chain_id": "31337", "account": DEV_CHAIN_ADDRESS}
        return Launch(argv, f"http://127.0.0.1:{port}", detail)

    def settle(self, state: ServerState) -> Mapping[str, str]:
        """Set the clock to now."""
        rpc.json_rpc(state.url, "evm_setTime", [int(time.time())])  # its clock began at genesis
        return {}

    def _genesis_time(self) -> str:
        noted = self.data / "genesis_time"
        if not noted.exists():
            noted.write_text(str(int(time.time())), encoding="ascii")
        return noted.read_text(encoding="ascii")


class Geth(_Ethereum):
    """geth ``--dev`` with a block a second; its faucet account fills the well-known account 0."""

    kind = "geth"
    ports = 2
    funded_within: ClassVar[float] = 20.0

    def launch(self, ports: Sequence[int]) -> Launch:
        """The command line and the URL, on these ports."""
        argv = [str(self.program), "--dev", "--dev.period", "1", "--datadir", str(self.data)]
        argv += ["--http", "--http.addr", "127.0.0.1", "--http.port", str(ports[0])]
        argv += ["--http.api", "eth,net,web3,txpool,debug", "--ipcdisable", "--nodiscover"]
        argv += ["--authrpc.addr", "127.0.0.1", "--authrpc.port", str(ports[1]), "--port", "0"]
        return Launch([*argv, *self.flags], f"http://127.0.0.1:{ports[0]}")

    def settle(self, state: ServerState) -> Mapping[str, str]:
        """Give the dev accounts coins to spend."""
        chain = int(str(rpc.json_rpc(state.url, "eth_chainId")), 16)
        self._fund(state.url)
        return {"chain_id": str(chain), "account": DEV_CHAIN_ADDRESS}

    def _fund(self, url: str) -> None:
        def balance() -> int:
            held = rpc.json_rpc(url, "eth_getBalance", [DEV_CHAIN_ADDRESS, "latest"])
            return int(str(held), 16)

        if balance() > 0:
            return
        accounts = rpc.json_rpc(url, "eth_accounts")
        if not isinstance(accounts, list) or not accounts:
            raise NetworkUnavailable(f"{url} has no faucet account")
        gift: dict[str, rpc.Json] = {
            "from": accounts[0],
            "to": DEV_CHAIN_ADDRESS,
            "value": hex(10_000 * 10**18),
        }
        rpc.json_rpc(url, "eth_sendTransaction", [gift])
        end = time.monotonic() + self.funded_within
        while balance() == 0:
            if time.monotonic() > end:
                raise NetworkUnavailable(f"{url} did not mine the transfer to account 0")
            time.sleep(0.2)


class Bitcoind(Node):
    """bitcoind on regtest: RPC on loopback under a cookie, no peers, no P2P port."""

    kind = "bitcoind"
    ready_within = 60.0
    stop_within = 40.0

    def launch(self, ports: Sequence[int]) -> Launch:
        """The command line and the URL, on these ports."""
        port = str(ports[0])
        argv = [str(self.program), "-regtest", f"-datadir={self.data}", "-server=1", "-listen=0"]
        argv += ["-connect=0", "-dnsseed=0", "-txindex=1", "-fallbackfee=0.0002"]
        argv += [f"-rpcport={port}", "-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1", *self.flags]
        cookie = self.data / "regtest" / ".cookie"
        detail = {"cookie_file": str(cookie), "wallet": WALLET, "chain": "regtest"}
        return Launch(argv, f"http://127.0.0.1:{port}", detail)

    @staticmethod
    def probe(state: ServerState, timeout: float) -> None:
        """Ask the server; raises until it answers."""
        found = rpc.bitcoin_rpc(state, "getblockchaininfo", timeout=timeout)
        if not isinstance(found, dict) or found.get("chain") != "regtest":
            raise NetworkUnavailable(f"{state.url} is not on regtest")

    def settle(self, state: ServerState) -> Mapping[str, str]:
        """The wallet, loaded; 101 blocks on a new chain; one more on a chain that has aged."""
        try:
            rpc.bitcoin_rpc(state, "loadwallet", [WALLET, True], timeout=30)
        except rpc.RpcRefused as refused:
            if refused.code == _WALLET_NOT_FOUND:
                # name, private keys, not blank, no passphrase, reuse, descriptors, at start
                arguments: list[rpc.Json] = [WALLET, False, False, "", False, True, True]
                rpc.bitcoin_rpc(state, "createwallet", arguments, timeout=30)
            elif refused.code != _WALLET_ALREADY_LOADED:
                raise
        info = rpc.bitcoin_rpc(state, "getblockchaininfo")
        if not isinstance(info, dict):
            raise NetworkUnavailable(f"{state.url} did not describe its chain")
        missing = 101 - int(str(info.get("blocks", 0)))
        if missing > 0:
            rpc.mine_bitcoin(state, missing)
        elif info.get("initialblockdownload"):
            rpc.mine_bitcoin(state, 1)
        return {}


class _Ipfs(Node):
    ports = 3
    ready_within = 60.0

    @staticmethod
    def probe(state: ServerState, timeout: float) -> None:
        """Ask the server; raises until it answers."""
        found = rpc.ipfs_call(state.url, "version", timeout=timeout)
        if not isinstance(found, dict) or "Version" not in found:
            raise NetworkUnavailable(f"{state.url} did not say its IPFS version")

    def launch(self, ports: Sequence[int]) -> Launch:
        """The command line and the URL, on these ports."""
        api, gateway, swarm = ports[:3]
        path = self.data / "config"
        config = json.loads(path.read_text())
        addresses = config.setdefault("Addresses", {})
        addresses["API"] = f"/ip4/127.0.0.1/tcp/{api}"
        addresses["Gateway"] = f"/ip4/127.0.0.1/tcp/{gateway}"
        addresses["Swarm"] = [f"/ip4/127.0.0.1/tcp/{swarm}"]
        config["Bootstrap"] = []
        config.setdefault("Discovery", {}).setdefault("MDNS", {})["Enabled"] = False
        self.isolate(config)
        files.replace(path, json.dumps(config, indent=2).encode())  # it holds a private key
        argv = [str(self.program), "daemon", *self.daemon_flags(), *self.flags]
        return Launch(argv, f"http://127.0.0.1:{api}", env=self.env())

    def env(self) -> dict[str, str]:
        """What points the program at its repository."""
        return {"IPFS_PATH": str(self.data)}

    def prepare(self, cancel: threading.Event) -> None:
        """Make the data folder ready for a start."""
        if (self.data / "config").exists():
            return
        # A first start that was cut short leaves a half repository: begin again.
        scratch = self.data.with_name(self.data.name + ".new")
        for left_over in (scratch, self.data):
            shutil.rmtree(left_over, ignore_errors=True)
        scratch.parent.mkdir(parents=True, exist_ok=True)
        argv = [str(self.program), "init", *self.init_flags()]
        run_tool(argv, deadline=60, cancel=cancel, env={"IPFS_PATH": str(scratch)})
        scratch.chmod(0o700)
        scratch.replace(self.data)

    @abstractmethod
    def isolate(self, config: dict[str, dict[str, object]]) -> None:
        """Takes what else reaches outside out of the configuration."""

    def init_flags(self) -> Sequence[str]:
        """More flags for ``init``."""
        return ()

    def daemon_flags(self) -> Sequence[str]:
        """More flags for ``daemon``."""
        return ()


class JsIpfs(_Ipfs):
    """js-ipfs: serves the RPC that Kubo serves, as far as this project uses it."""

    kind = "js-ipfs"

    def init_flags(self) -> Sequence[str]:
        """Of ``init``, beside the ones that all daemons take."""
        return ("--empty-repo",)

    def daemon_flags(self) -> Sequence[str]:
        """Of ``daemon``."""
        return ("--enable-preload=false",)

    def isolate(self, config: dict[str, dict[str, object]]) -> None:
        """Cut the daemon off from the public network, in its configuration."""
        config["Addresses"]["Delegates"] = []
        config["Addresses"].pop("RPC", None)
        config["Discovery"]["webRTCStar"] = {"Enabled": False}

    def prepare(self, cancel: threading.Event) -> None:
        """Make the data folder ready for a start."""
        super().prepare(cancel)
        # The supervisor holds the folder's only server; a lock found here is a dead one's.
        shutil.rmtree(self.data / "repo.lock", ignore_errors=True)


class Kubo(_Ipfs):
    """Kubo under its ``test`` profile, which cuts it off from the public network."""

    kind = "kubo"

    def init_flags(self) -> Sequence[str]:
        """Of ``init``, beside the ones that all daemons take."""
        return ("--profile=test",)

    def isolate(self, config: dict[str, dict[str, object]]) -> None:
        """Cut the daemon off from the public network, in its configuration."""
        config.setdefault("Routing", {})["Type"] = "none"


NODES: Mapping[str, type[Node]] = {
    each.kind: each for each in (RedisServer, Anvil, Geth, Bitcoind, JsIpfs, Kubo)
}
