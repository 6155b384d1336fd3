"""bitcoinrpc under our guarantees: one deadline, a bounded and checked answer, any caller."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from http.server import BaseHTTPRequestHandler

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provenance.chains.bitcoin import client, rpc
from provenance.chains.bitcoin.rpc import BitcoinRpc
from provenance.errors import LyingNodeError, MissingExtraError, NetworkUnavailable
from provenance.formats.fields import Fields
from provenance.settings import BitcoinSettings
from tests.support.nodes.rpc_stub import drip, http_server, json_rpc_server, raw_server, send


def node(url: str, timeout_s: float = 5.0) -> BitcoinRpc:
    return BitcoinRpc(BitcoinSettings(url=url, user="u", password="hunter2", timeout_s=timeout_s))


def seven(method: str, params: list[rpc.Value]) -> rpc.Value:
    return 7


@pytest.mark.slow
@pytest.mark.parametrize(
    "talk",
    [
        pytest.param(lambda link: None, id="silence"),
        pytest.param(
            lambda link: drip(link, b"HTTP/1.1 200 OK\r\nContent-Length: 61\r\n\r\n", b"x"),
            id="body drips",
        ),
        pytest.param(
            lambda link: drip(link, b"HTTP/1.1 200 OK\r\nX: ", b"\r\nContent-Length: 1\r\n\r\nx"),
            id="header drips",
        ),
    ],
)
def test_the_deadline_covers_the_whole_answer(talk: Callable[[socket.socket], None]) -> None:
    with raw_server(talk) as url:
        started = time.monotonic()
        with pytest.raises(NetworkUnavailable, match="in time"):
            node(url, 0.3).call("getblockcount")
        assert time.monotonic() - started < 1.5


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    ],
)
def test_a_broken_answer_is_unavailable(answer: bytes) -> None:
    def talk(link: socket.socket) -> None:
        link.sendall(answer)
        link.shutdown(socket.SHUT_RDWR)

    with raw_server(talk) as url, pytest.raises(NetworkUnavailable, match=r"broke off|reached"):
        node(url).call("getblockcount")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{free}/secret-path",
        "https://no-such-host.invalid",
        "https://node..example",
        "https://" + "a" * 70 + ".invalid",
    ],
)
def test_refused_and_unresolvable_are_unavailable(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(NetworkUnavailable, match="cannot be reached") as caught:
        node(url.format(free=port)).call("getblockcount")
    assert "secret-path" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_plain_text_behind_https_is_unavailable() -> None:
    with http_server(lambda request, _: send(request, b"")) as url:
        with pytest.raises(NetworkUnavailable):
            node(url.replace("http:", "https:")).call("getblockcount")


def test_an_oversized_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 100)

    def reply(request: BaseHTTPRequestHandler, body: bytes) -> None:
        number = json.loads(body)["id"]
        text = json.dumps({"id": number, "result": "x"}).encode()
        send(request, text.ljust(101 if "big" in request.path else 100))

    with http_server(reply) as url:
        with pytest.raises(LyingNodeError, match="more than 100 bytes"):
            node(url + "/big").call("getblockcount")
        assert node(url).call("getblockcount") == "x"


def test_the_transport_ignores_redirects_encodings_cookies_and_proxies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths: list[str] = []

    def reply(request: BaseHTTPRequestHandler, body: bytes) -> None:
        paths.append(request.path)
        text = json.dumps({"id": json.loads(body)["id"], "result": 1}).encode()
        status, name, value = 200, "Set-Cookie", "a=b"
        if request.path == "/moved/":
            text, status, name, value = b"", 307, "Location", "/elsewhere"
        if request.path == "/packed/":
            text, name, value = gzip.compress(text), "Content-Encoding", "gzip"
        assert request.headers["Cookie"] is None
        request.send_response(status)
        request.send_header(name, value)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with http_server(reply) as url:
        with pytest.raises(NetworkUnavailable, match="HTTP 307"):
            node(url + "/moved").call("getblockcount")
        with pytest.raises(LyingNodeError, match="not JSON"):
            node(url + "/packed").call("getblockcount")
        plain = node(url)
        assert [plain.call("getblockcount"), plain.call("getblockcount")] == [1, 1]
    assert paths == ["/moved/", "/packed/", "/", "/"]


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        ("[" * 65 + "]" * 65, Fields.objects),
        ("[" * 5000 + "]" * 5000, Fields.objects),
        ('{"a": 1, "a": 2}', Fields.object),
        ('"\\ud800"', Fields.text),
        ("NaN", rpc.sats),
        ("1e999", rpc.sats),
        ("18446744073709551616", rpc.depth),
        ("9007199254740992", rpc.depth),
        ("1.0", rpc.depth),
        ("0.000000001", rpc.sats),
    ],
)
def test_hostile_results_are_lies(result: str, kind: Callable[[Fields, str], object]) -> None:
    def reply(request: BaseHTTPRequestHandler, body: bytes) -> None:
        number = json.loads(body)["id"]
        send(request, f'{{"id": {number}, "result": {result}, "error": null}}'.encode())

    with http_server(reply) as url, pytest.raises(LyingNodeError):
        node(url).read(kind, "x")


@given(st.integers(0, 21_000_000 * 10**8))
@example(2_099_999_997_690_001)
@example(21_000_000 * 10**8 - 1)
def test_an_amount_that_came_as_a_float_is_exact(sats: int) -> None:
    text = f"{Decimal(sats) / 10**8:.8f}"
    assert rpc.sats(rpc.answered(Decimal(repr(float(text))), "x"), "x") == sats


def test_amounts_inside_lists_and_objects_are_exact() -> None:
    answer = {"mine": {"trusted": 0.1}, "list": [1, 0.00000001, [2.5]]}
    with json_rpc_server(lambda method, params: params[0]) as url:
        assert node(url).call("x", answer) == {  # type: ignore[arg-type]  # wrong or wider on purpose
            "mine": {"trusted": Decimal("0.1")},
            "list": [1, Decimal("1E-8"), [Decimal("2.5")]],
        }


def test_a_connection_that_the_server_drops_between_calls_fails_no_call() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(20):
            link, _ = listener.accept()
            with link:
                question = b""
                while not question.endswith(b"}"):
                    question += link.recv(65536)
                number = json.loads(question.split(b"\r\n\r\n")[1])["id"]
                text = json.dumps({"id": number, "result": 7}).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n"
                link.sendall(head.encode() + text)  # says nothing of closing

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    owner = node(f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert [owner.call("getblockcount") for _ in range(20)] == [7] * 20
    thread.join(10)
    listener.close()


@pytest.mark.slow
def test_callers_in_threads_and_inside_an_event_loop() -> None:
    async def inside() -> rpc.Value:
        return owner.call("getblockcount")

    with json_rpc_server(seven) as url:
        owner = node(url)
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda _: owner.call("x"), range(40))) == [7] * 40
        assert asyncio.run(inside()) == 7


def test_a_forked_child_calls_through_the_same_object() -> None:
    """As Celery's prefork pool does with what its parent built and used."""
    with json_rpc_server(seven) as url:
        owner = node(url)
        assert owner.call("x") == 7

        def child() -> None:
            os._exit(0 if owner.call("x") == 7 else 1)

        with client._lock:  # as if another thread were in the middle of a call
            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
        process.join(20)
        assert process.exitcode == 0
        assert owner.call("x") == 7


def test_an_interrupted_caller_is_free_at_once_and_its_call_ends() -> None:
    closed = threading.Event()
    caller = threading.get_ident()

    def talk(link: socket.socket) -> None:
        while sys._current_frames()[caller].f_code.co_name != "wait":
            time.sleep(0.01)  # the call may get here before its caller waits for it
        os.kill(os.getpid(), signal.SIGINT)
        link.settimeout(10)
        while link.recv(4096):  # what of the request was sent before the signal came
            pass
        closed.set()

    with raw_server(talk) as url, pytest.raises(KeyboardInterrupt):
        node(url, 30).call("x")
    assert closed.wait(5)


def test_httpx_logs_no_url_of_ours_and_those_of_others(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with json_rpc_server(seven) as url:
        node(url + "/secret-path").call("x")
        with client.httpx.Client() as http:
            http.post(url + "/theirs", json={"id": 1, "method": "x", "params": []})
    assert "secret-path" not in caplog.text
    assert "hunter2" not in caplog.text
    assert "/theirs" in caplog.text


@pytest.mark.parametrize("package", ["bitcoinrpc", "httpx", "orjson"])
def test_a_missing_package_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, client.__name__)
    with pytest.raises(MissingExtraError, match=r"pip install 'ml-provenance\[bitcoin\]'"):
        importlib.import_module(client.__name__)


def test_importing_provenance_brings_no_client_library() -> None:
    code = (
        "import sys, provenance, provenance.bootstrap, provenance.cli, provenance.chains.manager;"
        "print([m for m in ('bitcoinrpc', 'httpx', 'orjson') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
