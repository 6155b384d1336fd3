"""Who holds connections and does nothing with them."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from provenance.dashboard import server
from tests.support.deployment.dashboard import served


@pytest.mark.slow
def test_who_is_slow_is_dropped(tmp_path: Path) -> None:
    hurried = "from provenance.dashboard import server; server.REQUEST_S = 0.3"
    with served(tmp_path, before=hurried) as url:
        address = urlsplit(url).hostname, urlsplit(url).port
        for sent in (
            b"",
            b"GET / HTTP/1.1\r\nHost: loc",
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx",
        ):
            with socket.create_connection(address, timeout=20) as raw:
                raw.sendall(sent)
                try:
                    while raw.recv(65536):
                        pass
                except ConnectionResetError:
                    pass
        assert httpx.get(f"{url}/").status_code == 200


@pytest.mark.slow
def test_one_client_cannot_take_all_connections(tmp_path: Path) -> None:
    few = (
        "import logging; logging.disable(); from provenance.dashboard import server; "
        "server.MAX_CONNECTIONS = server.MAX_OF_CLIENT + 2"
    )
    with served(tmp_path, before=few) as url, ExitStack() as stack:
        address = urlsplit(url).hostname, urlsplit(url).port
        held = [
            stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(40)
        ]
        for raw in held[server.MAX_OF_CLIENT :]:
            with suppress(ConnectionResetError):
                assert raw.recv(1) == b""
        other, third = (
            stack.enter_context(httpx.Client(transport=httpx.HTTPTransport(local_address=own)))
            for own in ("127.0.0.2", "127.0.0.3")
        )
        assert other.get(f"{url}/style.css").status_code == 200
        full = third.get(f"{url}/style.css")
        assert full.status_code == 503
        assert full.headers["x-content-type-options"] == "nosniff"


@pytest.mark.slow
def test_who_takes_no_answer_is_dropped(tmp_path: Path) -> None:
    hurried = (
        "from provenance.dashboard import guard, server; server.STALLED_S = 0.3; guard.BURST = 1e9"
    )
    with served(tmp_path, before=hurried) as url, socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect((urlsplit(url).hostname, urlsplit(url).port))
        raw.setblocking(False)
        asked = b"GET /style.css HTTP/1.1\r\nHost: localhost\r\n\r\n" * 4000  # 40 MB of answers
        hung_up = select.poll()
        hung_up.register(raw, 0)
        while not hung_up.poll(200):
            with suppress(BlockingIOError):
                asked = asked[raw.send(asked) :]
        assert hung_up.poll(0)[0][1] & (select.POLLERR | select.POLLHUP)
