"""One POST under one deadline: every way in which a server can fail to answer."""

from __future__ import annotations

import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from provenance.chains.http import Endpoint
from provenance.errors import ConfigError, LyingNodeError, NetworkUnavailable
from tests.support.nodes.rpc_stub import drip, http_server, raw_server, send

KEY = "blockchain.bitcoin.url"


def test_post_carries_path_body_and_headers() -> None:
    def reply(request: BaseHTTPRequestHandler, body: bytes) -> None:
        told = f"{request.path} {request.headers['X-Test']} {request.headers['Connection']}"
        send(request, told.encode() + b" " + body, 500)

    with http_server(reply) as url:
        answer = Endpoint(url + "/base/", KEY, 5).ask("/call?a=1", b"hi", {"X-Test": "t"}, limit=99)
    assert (answer.status, answer.body) == (500, b"/base/call?a=1 t close hi")


@pytest.mark.parametrize(
    ("base", "path", "asked"),
    [
        ("/hook/?token=hunter2", "", "/hook/?token=hunter2"),
        ("?token=hunter2", "/a", "/a?token=hunter2"),
        ("/base/?token=hunter2", "/a?b=1", "/base/a?b=1&token=hunter2"),
        ("", "", "/"),
    ],
)
def test_a_query_of_the_base_is_sent_and_not_shown(base: str, path: str, asked: str) -> None:
    with http_server(lambda request, _: send(request, request.path.encode())) as url:
        endpoint = Endpoint(url + base, KEY, 5)
        assert endpoint.ask(path, b"", limit=99).body.decode() == asked
    assert endpoint.where == url
    with pytest.raises(NetworkUnavailable) as caught:
        endpoint.ask(path, b"", limit=99)
    assert "hunter2" not in str(caught.value)


def test_a_body_that_nobody_wants_is_not_read() -> None:
    def talk(link: socket.socket) -> None:
        drip(link, b"HTTP/1.1 202 Accepted\r\nContent-Length: 9999999\r\n\r\n", b"x")

    with raw_server(talk) as url:
        assert Endpoint(url, KEY, 5).ask("", b"", limit=None).status == 202


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
    with raw_server(talk) as url, pytest.raises(NetworkUnavailable, match="in time"):
        Endpoint(url, KEY, 0.3).ask("", b"", {}, limit=99999)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
def test_a_broken_answer_is_unavailable(answer: bytes) -> None:
    def talk(link: socket.socket) -> None:
        link.sendall(answer)
        link.shutdown(socket.SHUT_RDWR)

    with raw_server(talk) as url, pytest.raises(NetworkUnavailable, match=r"broke off|reached"):
        Endpoint(url, KEY, 5).ask("", b"", {}, limit=99)


def test_refused_and_unresolvable_are_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(NetworkUnavailable, match="refused"):
        Endpoint(f"http://127.0.0.1:{port}", KEY, 5).ask("", b"", {}, limit=9)
    with pytest.raises(NetworkUnavailable):
        Endpoint("https://no-such-host.invalid", KEY, 5).ask("", b"", {}, limit=9)


def test_plain_text_behind_https_is_unavailable() -> None:
    with http_server(lambda request, _: send(request, b"")) as url:
        with pytest.raises(NetworkUnavailable):
            Endpoint(url.replace("http:", "https:"), KEY, 5).ask("", b"", {}, limit=9)


def test_an_oversized_answer_is_refused() -> None:
    with http_server(lambda request, _: send(request, b"x" * 11)) as url:
        with pytest.raises(LyingNodeError, match="more than 10 bytes"):
            Endpoint(url, KEY, 5).ask("", b"", {}, limit=10)
        assert Endpoint(url, KEY, 5).ask("", b"", {}, limit=11).body == b"x" * 11


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://10.1.2.3:8332", "plain HTTP to 10.1.2.3"),
        ("http://node.example:8332", "plain HTTP to node.example"),
        ("http://127.0.0.1.example", "plain HTTP"),
        ("ftp://127.0.0.1", "no URL"),
        ("127.0.0.1:8332", "no URL"),
        ("http://", "no URL"),
        ("http://127.0.0.1:port", "no URL"),
        ("http://user:hunter2@127.0.0.1:8332", "user or password"),
        ("https://user@node.example", "user or password"),
        ("https://node.example/?token=hunter2\N{LATIN SMALL LETTER U WITH DIAERESIS}", "%XX"),
        ("https://node.example/hunter2 a", "%XX"),
    ],
)
def test_urls_that_are_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        Endpoint(url, KEY, 5)
    assert caught.value.key == KEY
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost", "http://[::1]:1", "https://node.example/x"])
def test_urls_that_are_taken(url: str) -> None:
    assert Endpoint(url, KEY, 5).where.startswith(url[:12])
    assert "/x" not in Endpoint(url, KEY, 5).where
