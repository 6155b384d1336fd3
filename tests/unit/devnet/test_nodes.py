"""How each kind of server is started, probed and set up, against scripted answers."""

from __future__ import annotations

import json
import socket
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from provenance.errors import NetworkUnavailable, UnavailableError
from provenance_devnet import nodes, rpc
from provenance_devnet.servers import DEV_CHAIN_ADDRESS, ServerState

Answer = object


class Scripted:
    """An HTTP server on loopback that answers by JSON-RPC method, or by path.

    An answer is a value, an ``(code, message)`` error, a list ``[..., last]`` under ``each`` that
    is used up, or raw ``bytes``.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.each: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, object]] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                call = json.loads(body) if body else {}
                method = str(call.get("method", self.path))
                outer.asked.append((method, call.get("params")))
                outer.headers.append({**dict(self.headers), "path": self.path})
                status, answer = outer.answer(method, bool(body))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def answer(self, method: str, is_rpc: bool) -> tuple[int, bytes]:
        queue = self.each.get(method)
        found = queue.pop(0) if queue else self.answers.get(method, (-32601, "no such method"))
        if isinstance(found, bytes):
            return 200, found
        if isinstance(found, tuple):
            error = {"code": found[0], "message": found[1]}
            return 500, json.dumps({"id": 1, "result": None, "error": error}).encode()
        if not is_rpc:
            return 200, json.dumps(found).encode()
        return 200, json.dumps({"id": 1, "result": found, "error": None}).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.close()


@pytest.fixture
def bitcoin(server: Scripted, tmp_path: Path) -> ServerState:
    cookie = tmp_path / ".cookie"
    cookie.write_text("__cookie__:secret\n")
    detail = {"cookie_file": str(cookie), "wallet": "provenance"}
    return ServerState("bitcoin", "bitcoind", 1, server.url, detail, running=True)


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- speaking -------------------------------------------------------------------------------


def test_an_rpc_error_keeps_its_code_even_with_status_500(server: Scripted) -> None:
    server.answers["boom"] = (-8, "that is wrong")
    with pytest.raises(rpc.RpcRefused, match=r"boom: that is wrong \(-8\)") as caught:
        rpc.json_rpc(server.url, "boom")
    assert caught.value.code == -8
    server.answers["boom"] = b'{"error": {"code": "odd", "message": "x"}}'
    with pytest.raises(rpc.RpcRefused) as caught:
        rpc.json_rpc(server.url, "boom")
    assert caught.value.code == 0


def test_no_answer_and_no_json_are_unavailable(server: Scripted) -> None:
    with pytest.raises(NetworkUnavailable, match="does not answer"):
        rpc.json_rpc(f"http://127.0.0.1:{_closed_port()}", "any")
    server.answers["any"] = b"<html>"
    with pytest.raises(NetworkUnavailable, match="does not answer"):
        rpc.json_rpc(server.url, "any")
    server.answers["any"] = b"[]"
    with pytest.raises(NetworkUnavailable, match="not answer any with JSON-RPC"):
        rpc.json_rpc(server.url, "any")


def test_a_bitcoin_call_sends_the_cookie_and_names_the_wallet(
    server: Scripted, bitcoin: ServerState
) -> None:
    server.answers["getbalance"] = 50
    assert rpc.bitcoin_rpc(bitcoin, "getbalance", wallet=True) == 50
    assert server.headers[0]["Authorization"] == "Basic X19jb29raWVfXzpzZWNyZXQ="
    assert server.headers[0]["path"] == "/wallet/provenance"
    Path(bitcoin.detail["cookie_file"]).unlink()
    with pytest.raises(NetworkUnavailable, match="cookie"):
        rpc.bitcoin_rpc(bitcoin, "getbalance")


def _redis_saying(answer: bytes) -> tuple[str, threading.Thread]:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as link:
            link.recv(64)
            link.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return f"redis://127.0.0.1:{listener.getsockname()[1]}/0", thread


def test_redis_must_say_pong() -> None:
    url, thread = _redis_saying(b"+PONG\r\n")
    state = ServerState("redis", "redis-server", 1, url)
    nodes.RedisServer.probe(state, 2)
    thread.join()
    url, thread = _redis_saying(b"-LOADING the dataset\r\n")
    with pytest.raises(NetworkUnavailable, match="-LOADING the dataset"):
        rpc.redis_ping(url)
    thread.join()
    with pytest.raises(NetworkUnavailable, match="does not answer"):
        rpc.redis_ping(f"redis://127.0.0.1:{_closed_port()}/0")


# --- mining ---------------------------------------------------------------------------------


def test_mining_on_anvil(server: Scripted) -> None:
    server.each["eth_blockNumber"] = ["0x1", "0x4"]
    server.answers["anvil_mine"] = None
    assert rpc.mine_ethereum(server.url, 3) == 4
    assert ("anvil_mine", ["0x3"]) in server.asked


def test_mining_on_hardhat(server: Scripted) -> None:
    server.each["eth_blockNumber"] = ["0x1", "0x3"]
    server.answers["evm_mine"] = "0x0"
    assert rpc.mine_ethereum(server.url, 2) == 3
    assert [method for method, _ in server.asked].count("evm_mine") == 2


@pytest.mark.slow
def test_mining_on_geth_waits_for_its_clock(server: Scripted) -> None:
    server.each["eth_blockNumber"] = ["0x1", "0x1", "0x2"]
    assert rpc.mine_ethereum(server.url, 1) == 2
    server.answers["eth_blockNumber"] = "0x2"
    with pytest.raises(NetworkUnavailable, match="is at block 2, not 9, after 0 s"):
        rpc._await_height(server.url, 9, 0.0)


@pytest.mark.parametrize("method", ["anvil_mine", "evm_mine"])
def test_mining_that_is_refused_is_told(server: Scripted, method: str) -> None:
    server.answers["eth_blockNumber"] = "0x1"
    server.answers[method] = (-32000, "no")
    with pytest.raises(rpc.RpcRefused):
        rpc.mine_ethereum(server.url, 1)


def test_mining_on_bitcoin(server: Scripted, bitcoin: ServerState) -> None:
    server.answers |= {"getnewaddress": "bcrt1q", "generatetoaddress": ["aa", "bb"]}
    assert rpc.mine_bitcoin(bitcoin, 2) == ["aa", "bb"]
    assert server.asked[-1] == ("generatetoaddress", [2, "bcrt1q"])
    server.answers["generatetoaddress"] = None
    assert rpc.mine_bitcoin(bitcoin) == []


# --- nodes ----------------------------------------------------------------------------------


def test_every_command_listens_on_loopback_only(tmp_path: Path) -> None:
    for kind in ("redis-server", "anvil", "geth", "bitcoind"):
        node = nodes.NODES[kind](Path("/bin/it"), tmp_path / kind, ["--more"])
        node.prepare(threading.Event())
        launch = node.launch([4001, 4002])
        words = " ".join(launch.argv)
        assert "127.0.0.1" in words
        assert "4001" in words
        assert launch.argv[-1] == "--more"
        assert launch.url.split("/")[2] == "127.0.0.1:4001"
        assert stat.S_IMODE((tmp_path / kind).stat().st_mode) == 0o700


def test_an_ethereum_node_must_serve_its_chain(server: Scripted) -> None:
    state = ServerState("ethereum", "anvil", 1, server.url, {"chain_id": "31337"})
    server.answers["eth_chainId"] = "0x7a69"
    nodes.Anvil.probe(state, 2)
    server.answers["eth_chainId"] = "0x1"
    with pytest.raises(NetworkUnavailable, match="serves chain 1"):
        nodes.Anvil.probe(state, 2)


@pytest.mark.slow
def test_geth_fills_account_0_once(server: Scripted, tmp_path: Path) -> None:
    geth = nodes.Geth(Path("geth"), tmp_path)
    state = ServerState("ethereum", "geth", 1, server.url)
    server.answers |= {
        "eth_chainId": "0x539",
        "eth_accounts": ["0xfaucet"],
        "eth_sendTransaction": "0xhash",
    }
    server.each["eth_getBalance"] = ["0x0", "0x0", "0x5"]
    assert geth.settle(state) == {"chain_id": "1337", "account": DEV_CHAIN_ADDRESS}
    sent = [params for method, params in server.asked if method == "eth_sendTransaction"]
    assert sent == [[{"from": "0xfaucet", "to": DEV_CHAIN_ADDRESS, "value": hex(10_000 * 10**18)}]]
    server.answers["eth_getBalance"] = "0x5"
    geth.settle(state)
    assert [method for method, _ in server.asked].count("eth_sendTransaction") == 1


def test_geth_without_faucet_or_blocks_is_told(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    geth = nodes.Geth(Path("geth"), tmp_path)
    state = ServerState("ethereum", "geth", 1, server.url)
    server.answers |= {"eth_chainId": "0x539", "eth_getBalance": "0x0", "eth_accounts": []}
    with pytest.raises(NetworkUnavailable, match="no faucet"):
        geth.settle(state)
    server.answers |= {"eth_accounts": ["0xf"], "eth_sendTransaction": "0xhash"}
    monkeypatch.setattr(nodes.Geth, "funded_within", 0.0)
    with pytest.raises(NetworkUnavailable, match="did not mine"):
        geth.settle(state)


def test_bitcoind_must_be_on_regtest(server: Scripted, bitcoin: ServerState) -> None:
    server.answers["getblockchaininfo"] = {"chain": "regtest"}
    nodes.Bitcoind.probe(bitcoin, 2)
    server.answers["getblockchaininfo"] = {"chain": "main"}
    with pytest.raises(NetworkUnavailable, match="not on regtest"):
        nodes.Bitcoind.probe(bitcoin, 2)


@pytest.mark.parametrize(
    ("wallet", "info", "created", "mined"),
    [
        ((-18, "not found"), {"blocks": 0, "initialblockdownload": True}, 1, [101]),
        ({"name": "provenance"}, {"blocks": 300, "initialblockdownload": True}, 0, [1]),
        ((-35, "already loaded"), {"blocks": 300, "initialblockdownload": False}, 0, []),
    ],
)
def test_bitcoind_gets_its_wallet_and_its_blocks(
    server: Scripted,
    bitcoin: ServerState,
    tmp_path: Path,
    wallet: object,
    info: dict[str, object],
    created: int,
    mined: list[int],
) -> None:
    server.answers |= {
        "loadwallet": wallet,
        "createwallet": {"name": "provenance"},
        "getblockchaininfo": info,
        "getnewaddress": "bcrt1q",
        "generatetoaddress": [],
    }
    nodes.Bitcoind(Path("bitcoind"), tmp_path).settle(bitcoin)
    methods = [method for method, _ in server.asked]
    assert methods.count("createwallet") == created
    called = [params for method, params in server.asked if method == "generatetoaddress"]
    assert [params[0] for params in called if isinstance(params, list)] == mined


def test_bitcoind_that_cannot_serve_is_told(
    server: Scripted, bitcoin: ServerState, tmp_path: Path
) -> None:
    node = nodes.Bitcoind(Path("bitcoind"), tmp_path)
    server.answers["loadwallet"] = (-4, "wallet is corrupt")
    with pytest.raises(rpc.RpcRefused, match="corrupt"):
        node.settle(bitcoin)
    server.answers |= {"loadwallet": {}, "getblockchaininfo": []}
    with pytest.raises(NetworkUnavailable, match="did not describe"):
        node.settle(bitcoin)


def test_an_ipfs_node_must_say_its_version(server: Scripted) -> None:
    state = ServerState("ipfs", "js-ipfs", 1, server.url)
    server.answers["/api/v0/version"] = {"Version": "0.18.1"}
    nodes.JsIpfs.probe(state, 2)
    server.answers["/api/v0/version"] = ["?"]
    with pytest.raises(NetworkUnavailable, match="IPFS version"):
        nodes.Kubo.probe(state, 2)


_INIT = """\
#!/bin/sh
test "$1" = init || exit 9
mkdir -p "$IPFS_PATH/repo.lock" && echo "$@" > "$IPFS_PATH/args"
echo '{"Addresses": {"RPC": "/ip4/127.0.0.1/tcp/1"}, "Discovery": {}, "Bootstrap": ["x"]}' \
  > "$IPFS_PATH/config"
"""


@pytest.mark.parametrize(
    ("kind", "init", "daemon"),
    [
        ("js-ipfs", "init --empty-repo", ["daemon", "--enable-preload=false"]),
        ("kubo", "init --profile=test", ["daemon"]),
    ],
)
def test_an_ipfs_repository_is_made_once_and_cut_off(
    tmp_path: Path, kind: str, init: str, daemon: list[str]
) -> None:
    program = tmp_path / "ipfs"
    program.write_text(_INIT)
    program.chmod(0o755)
    data = tmp_path / "data" / kind
    (data / "half").mkdir(parents=True)  # a first start that was cut short
    node = nodes.NODES[kind](program, data)
    node.prepare(threading.Event())
    assert not (data / "half").exists()
    assert (data / "args").read_text().strip() == init
    assert (data / "repo.lock").exists() is (kind == "kubo")
    launch = node.launch([5001, 5002, 5003])
    assert launch.url == "http://127.0.0.1:5001"
    assert launch.env == {"IPFS_PATH": str(data)}
    assert list(launch.argv[1:]) == daemon
    config = json.loads((data / "config").read_text())
    assert config["Bootstrap"] == []
    assert config["Discovery"]["MDNS"] == {"Enabled": False}
    assert config["Addresses"]["API"] == "/ip4/127.0.0.1/tcp/5001"
    assert config["Addresses"]["Swarm"] == ["/ip4/127.0.0.1/tcp/5003"]
    assert stat.S_IMODE((data / "config").stat().st_mode) == 0o600
    (data / "args").write_text("kept")
    node.prepare(threading.Event())
    assert (data / "args").read_text() == "kept"


def test_an_ipfs_that_cannot_init_is_told(tmp_path: Path) -> None:
    program = tmp_path / "ipfs"
    program.write_text("#!/bin/sh\necho no space; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(UnavailableError, match="ipfs failed with status 1: no space"):
        nodes.Kubo(program, tmp_path / "data").prepare(threading.Event())
    assert not (tmp_path / "data").exists()
