"""ipfshttpclient over our transport: what its own transport does not promise."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from provenance.chains.ipfs import IPFSInterface
from provenance.errors import (
    ConfigError,
    LyingNodeError,
    MissingExtraError,
    NetworkUnavailable,
    ProvenanceError,
)
from provenance.ports.values import SignedVersion, anchor_payload
from provenance.proofs.ipfs.cid import raw_cid
from provenance.settings import IPFSSettings
from tests.support.nodes.rpc_stub import drip, http_server, raw_server, send

pytestmark = pytest.mark.slow

PAYLOAD = anchor_payload(bytes(32))
CID = str(raw_cid(PAYLOAD))


def network(url: str, timeout_s: float = 5, auth: str | None = None) -> IPFSInterface:
    return IPFSInterface(IPFSSettings(url=url, timeout_s=timeout_s, auth=auth))


def version(daemon: IPFSInterface) -> SignedVersion:
    return daemon.sign(daemon.draft(PAYLOAD), None)


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
def test_the_deadline_covers_the_whole_call(talk: Callable[[socket.socket], None]) -> None:
    with raw_server(talk) as url:
        start = time.monotonic()
        with pytest.raises(NetworkUnavailable, match="in time"):
            network(url, 0.3).identity()
        assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b" " * (1024 * 1024 + 1), "more than 1048576 bytes"),
        # ipfshttpclient's decoder takes minutes for this, and doubles it to four times as many.
        (b"[" + b"1,\n" * 100_000, "not JSON"),
        (b"[" * 500_000, "not JSON"),
        (b'{"Version": "1", "Version": "2"}', "not JSON"),
        (b'{"Version": "1"}\n{"Version": "2"}', "2 objects, expected one"),
        (b'{"Type": "error"}', "None"),
        (b'{"Type": "error", "Message": "disk full"}', "disk full"),
    ],
    ids=["large", "quadratic", "deep", "twice", "two", "no message", "late error"],
)
def test_hostile_answers_end_at_once(body: bytes, error: str) -> None:
    with http_server(lambda request, _: send(request, body)) as url:
        start = time.monotonic()
        with pytest.raises((LyingNodeError, NetworkUnavailable), match=error):
            network(url).identity()
        assert time.monotonic() - start < 3


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404, 429, 500])
def test_any_other_status_ends_the_call(status: int) -> None:
    asked: list[str] = []

    def reply(request: BaseHTTPRequestHandler, _: bytes) -> None:
        asked.append(request.path)
        request.send_response(status)
        request.send_header("Location", "/elsewhere")
        request.send_header("Content-Length", "0")
        request.end_headers()

    with http_server(reply) as url, pytest.raises(NetworkUnavailable, match=f"HTTP {status}"):
        network(url).lookup(CID)
    assert len(asked) == 1


def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    heads: list[dict[str, str]] = []

    def reply(request: BaseHTTPRequestHandler, _: bytes) -> None:
        heads.append(dict(request.headers.items()))
        send(request, PAYLOAD)

    with http_server(reply) as url:
        assert network(url + "/node/", auth="Bearer x").lookup(CID).root == bytes(32)
    assert heads[0]["Authorization"] == "Bearer x"
    code = (
        "import sys; from provenance.chains.ipfs import IPFSInterface as I;"
        "from provenance.settings import IPFSSettings as S;"
        f"print(I(S(url=sys.argv[1])).lookup({CID!r}).root == bytes(32))"
    )
    chosen = {"PY_IPFS_HTTP_CLIENT_PREFER_HTTPX": "yes", "PYTHONPATH": ":".join(sys.path)}
    with http_server(reply) as url:
        command = [sys.executable, "-c", code, url]
        done = subprocess.run(command, env=chosen, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_a_path_prefix_and_the_options_of_add() -> None:
    asked: list[tuple[str, bytes]] = []

    def reply(request: BaseHTTPRequestHandler, body: bytes) -> None:
        asked.append((request.path, body))
        send(request, json.dumps({"Hash": CID}).encode())

    with http_server(reply) as url:
        daemon = network(url + "/node")
        daemon.broadcast(version(daemon))
    ((path, body),) = asked
    assert path.startswith("/node/api/v0/add?cid-version=1&raw-leaves=true&hash=sha2-256")
    assert "only-hash=false" in path
    assert body.count(PAYLOAD) == 1


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://my_host:5001", "found host 'my_host', expected one a multiaddr can name"),
        ("https://[fe80::1%25eth0]", "a multiaddr can name"),
        ("http://user:hunter2@127.0.0.1:5001", "user or password"),
        ("http://node.example:5001", "plain HTTP"),
    ],
)
def test_urls_that_are_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        network(url)
    assert caught.value.key == "blockchain.ipfs.url"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://localhost:5001", "http://[::1]:1", "https://node.example/x", "https://ipfs"]
)
def test_urls_that_are_taken(url: str) -> None:
    assert network(url).client() == "ipfshttpclient 0.7.0"


def test_an_authorization_that_no_header_carries_is_refused() -> None:
    with pytest.raises(ConfigError, match="HTTP header") as caught:
        network("http://127.0.0.1:1", auth="Bearer hunter2\r\nX: y")
    assert "hunter2" not in str(caught.value)


def test_the_package_is_imported_at_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys, provenance.chains.ipfs, provenance.chains.manager;"
        "print([x for x in ('ipfshttpclient', 'requests', 'multiaddr') if x in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    monkeypatch.delitem(sys.modules, "provenance.chains.ipfs_client", raising=False)
    monkeypatch.setitem(sys.modules, "ipfshttpclient", None)
    with pytest.raises(MissingExtraError, match=r"ml-provenance\[ipfs\]") as caught:
        network("http://127.0.0.1:1")
    assert isinstance(caught.value, ProvenanceError)
    assert caught.value.package == "ipfshttpclient"
