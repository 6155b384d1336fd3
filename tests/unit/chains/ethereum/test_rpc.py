"""The connection, against a server that answers as it is told."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provenance.chains.ethereum.errors import BlockMissingError, MethodMissingError
from provenance.chains.ethereum.rpc import MAX_ANSWER_BYTES, EthereumRPC, endpoint
from provenance.errors import (
    ConfigError,
    LyingNodeError,
    NetworkUnavailable,
    NonceUsedError,
    ProvenanceError,
    RejectedError,
)

SECRET = "hunter2hunter2"


class Server:
    """``answer`` gives status and body for the request's JSON."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, object]], tuple[int, bytes]] = ok("0x1")
        self.seen: list[dict[str, object]] = []
        self.drip = threading.Event()
        self.headers: dict[str, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.seen.append(request)
                status, body = outer.answer(request)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if not outer.drip.is_set():
                    self.wfile.write(body)
                    return
                try:
                    for byte in body:
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                        if not outer.drip.wait(0):
                            return
                        threading.Event().wait(0.02)
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


def ok(result: object) -> Callable[[dict[str, object]], tuple[int, bytes]]:
    return lambda request: (
        200,
        json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode(),
    )


def refused(
    error: object, status: int = 200, id_: object = "same"
) -> Callable[[dict[str, object]], tuple[int, bytes]]:
    return lambda request: (
        status,
        json.dumps({"id": request["id"] if id_ == "same" else id_, "error": error}).encode(),
    )


@pytest.fixture(scope="module")
def served() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def server(served: Server) -> Iterator[Server]:
    served.answer, served.headers = ok("0x1"), {}
    served.drip.clear()
    served.seen.clear()
    yield served
    served.drip.clear()


@pytest.fixture
def rpc(server: Server) -> Iterator[EthereumRPC]:
    connection = EthereumRPC(server.url, 5.0)
    yield connection
    connection.close()


def test_a_call_carries_method_and_parameters(rpc: EthereumRPC, server: Server) -> None:
    assert rpc.call("eth_getBalance", "0xab", "latest") == "0x1"
    assert server.seen[0]["method"] == "eth_getBalance"
    assert server.seen[0]["params"] == ["0xab", "latest"]


def test_a_null_result_is_an_answer(rpc: EthereumRPC, server: Server) -> None:
    server.answer = ok(None)
    assert rpc.call("eth_getTransactionByHash", "0x0") is None


@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_error_object_speaks_whatever_the_status(
    rpc: EthereumRPC, server: Server, status: int
) -> None:
    server.answer = refused({"code": -32000, "message": "nonce too low"}, status)
    with pytest.raises(NonceUsedError):
        rpc.call("eth_sendRawTransaction", "0x")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": -32601, "message": "no"}, MethodMissingError),
        ({"code": -39001, "message": "x"}, BlockMissingError),
        ({"code": "odd", "message": "execution reverted"}, RejectedError),
        ({"code": -32602}, RejectedError),
        ({"code": -32602, "message": None}, RejectedError),
        ({}, NetworkUnavailable),
        ("execution reverted", RejectedError),
    ],
)
def test_error_objects(
    rpc: EthereumRPC, server: Server, error: object, kind: type[Exception]
) -> None:
    server.answer = refused(error)
    with pytest.raises(kind):
        rpc.call("eth_call")


def test_a_node_that_could_not_read_the_id_may_send_null(rpc: EthereumRPC, server: Server) -> None:
    server.answer = refused({"code": -32700, "message": "parse error"}, id_=None)
    with pytest.raises(RejectedError):
        rpc.call("eth_call")


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404, 408, 429, 500, 502, 503])
@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b"[]", b'{"id":1,"result":"0x1"}'])
def test_http_failures_are_retryable(
    rpc: EthereumRPC, server: Server, status: int, body: bytes
) -> None:
    server.answer = lambda request: (status, body)
    with pytest.raises(NetworkUnavailable, match=str(status)):
        rpc.call("eth_chainId")


def test_429_is_retryable_even_with_an_error_object(rpc: EthereumRPC, server: Server) -> None:
    server.answer = refused({"code": -32000, "message": "execution reverted"}, 429)
    with pytest.raises(NetworkUnavailable, match="429"):
        rpc.call("eth_chainId")


def test_a_redirect_is_not_followed(rpc: EthereumRPC, server: Server) -> None:
    server.answer = lambda request: (307, b"")
    server.headers = {"Location": server.url + "/elsewhere"}
    with pytest.raises(NetworkUnavailable, match="redirect"):
        rpc.call("eth_chainId")
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"<html>", b"\xff\xfe", b"[" * 200_000, b'{"id": ' + b"9" * 5000]
)
def test_what_is_not_json_is_no_node(rpc: EthereumRPC, server: Server, body: bytes) -> None:
    server.answer = lambda request: (200, body)
    with pytest.raises(NetworkUnavailable, match="not JSON"):
        rpc.call("eth_chainId")


def test_brackets_in_strings_are_no_nesting(rpc: EthereumRPC, server: Server) -> None:
    text = '[{"' * 1000 + "\\"
    server.answer = ok(text)
    assert rpc.call("web3_clientVersion") == text


@pytest.mark.parametrize("before", [b"", b"[" + b"[]," * 100])
def test_an_unclosed_string_takes_linear_time(
    rpc: EthereumRPC, server: Server, before: bytes
) -> None:
    # Quadratic, this would run for hours.
    server.answer = lambda request: (200, before + b'"' + b'\\"' * 2_000_000)
    with pytest.raises(NetworkUnavailable, match="not JSON"):
        rpc.call("eth_chainId")


@pytest.mark.parametrize("module", ["libs", "rpc", "responses", "node", "contract", "sender"])
@pytest.mark.slow
def test_the_recursion_limit_stays_the_interpreters(module: str) -> None:
    program = (
        "import sys; before = sys.getrecursionlimit();"
        f"import provenance.chains.ethereum.{module}; assert sys.getrecursionlimit() == before"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "answer",
    [
        [],
        "0x1",
        None,
        {},
        {"id": "same"},
        {"result": "0x1"},
        {"id": 10**9, "result": "0x1"},
        {"id": "same", "result": "0x1", "error": {"message": "both"}},
        {"id": "same", "error": None},
        {"id": 10**9, "error": {"message": "nonce too low"}},
    ],
)
def test_json_of_another_shape_is_a_lie(rpc: EthereumRPC, server: Server, answer: object) -> None:
    def say(request: dict[str, object]) -> tuple[int, bytes]:
        told = answer
        if isinstance(told, dict) and told.get("id") == "same":
            told = {**told, "id": request["id"]}
        return 200, json.dumps(told).encode()

    server.answer = say
    with pytest.raises(LyingNodeError):
        rpc.call("eth_chainId")


def test_an_endless_answer_is_cut_off(rpc: EthereumRPC, server: Server) -> None:
    server.answer = lambda request: (200, b" " * (MAX_ANSWER_BYTES + 1))
    with pytest.raises(LyingNodeError, match="bytes in one answer"):
        rpc.call("eth_chainId")


@pytest.mark.slow
def test_a_dripping_answer_meets_the_deadline(server: Server) -> None:
    server.drip.set()
    server.answer = lambda request: (200, b" " * 100_000)
    rpc = EthereumRPC(server.url, 0.3)
    with pytest.raises(NetworkUnavailable, match=r"within 0\.3 s"):
        rpc.call("eth_chainId")
    rpc.close()


@pytest.mark.slow
def test_a_silent_server_meets_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        rpc = EthereumRPC(f"http://127.0.0.1:{listening.getsockname()[1]}", 0.2)
        with pytest.raises(NetworkUnavailable, match="did not answer eth_chainId"):
            rpc.call("eth_chainId")
        rpc.close()


def test_a_cut_connection_is_retryable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            peer, _ = listening.accept()
            peer.recv(65536)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            peer.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        rpc = EthereumRPC(f"http://127.0.0.1:{listening.getsockname()[1]}", 5.0)
        with pytest.raises(NetworkUnavailable):
            rpc.call("eth_chainId")
        thread.join()
        rpc.close()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def test_refused_connections_name_the_reason_and_no_secret() -> None:
    rpc = EthereumRPC(f"http://user:{SECRET}@127.0.0.1:{closed_port()}/v3/{SECRET}?k={SECRET}", 2.0)
    with pytest.raises(NetworkUnavailable, match="connection refused") as caught:
        rpc.call("eth_chainId")
    told = "".join(traceback.format_exception(caught.value))
    assert SECRET not in told
    rpc.close()


def test_an_unknown_host_is_unavailable() -> None:
    rpc = EthereumRPC(f"https://node.invalid/{SECRET}", 5.0)
    with pytest.raises(NetworkUnavailable, match=r"https://node\.invalid") as caught:
        rpc.call("eth_chainId")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    rpc.close()


def test_no_secret_reaches_a_log(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    rpc = EthereumRPC(f"{server.url}/v3/{SECRET}?key={SECRET}", 5.0)
    rpc.call("eth_chainId")
    rpc.close()
    assert any("(hidden)" in line for line in caplog.messages)
    assert SECRET not in caplog.text


def test_a_forked_child_opens_a_connection_of_its_own(rpc: EthereumRPC) -> None:
    rpc.call("eth_chainId")
    before = rpc.provider._session
    rpc.provider._pid = os.getpid() + 1  # as a child finds it
    rpc.call("eth_chainId")
    assert rpc.provider._session is not before


def test_closing_an_unused_connection_is_fine() -> None:
    EthereumRPC("http://127.0.0.1:1", 1.0).close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
        ("http://localhost/x", "http://localhost"),
        ("http://[::1]:8545/", "http://[::1]:8545"),
        ("https://mainnet.example/v3/key?x=1", "https://mainnet.example"),
        ("https://u:p@node.example:444/", "https://node.example:444"),
    ],
)
def test_endpoint_shows_no_path(url: str, shown: str) -> None:
    assert endpoint(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "http://node.example:8545/" + SECRET,
        "http://10.0.0.5:8545",
        "http://127.0.0.1.example/",
        "ws://127.0.0.1:8545",
        "127.0.0.1:8545",
        "https://",
        "http://[::1",
        "http://127.0.0.1:99999",
        "",
    ],
)
def test_refused_urls_name_the_key(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EthereumRPC(url, 1.0)
    assert caught.value.key == "blockchain.ethereum.url"
    assert SECRET not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "result", "error", "code", "message", "x"]), inner)
    ),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(status=st.sampled_from([200, 200, 400, 429, 500]), answer=json_values)
def test_no_answer_makes_a_foreign_error(
    rpc: EthereumRPC, server: Server, status: int, answer: object
) -> None:
    def say(request: dict[str, object]) -> tuple[int, bytes]:
        told = {**answer, "id": request["id"]} if isinstance(answer, dict) else answer
        return status, json.dumps(told).encode()

    server.answer = say
    try:
        rpc.call("eth_call")
    except ProvenanceError:
        assert not (status == 200 and isinstance(answer, dict) and set(answer) == {"result"})
