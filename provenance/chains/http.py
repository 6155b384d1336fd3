"""One HTTP request under one deadline: what the IPFS client stands on.

The deadline covers connecting, the TLS handshake, sending, waiting and every byte of the
answer together, so that a server that drips a byte a second cannot hold a worker. (A
name server's silence is bounded by the resolver's own timeout.) Each call opens its own
connection: no keep-alive to find dead after a node's restart, and safe between threads.
Proxies of the environment are ignored, and redirects are not followed.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import SplitResult

from provenance.errors import LyingNodeError, NetworkUnavailable
from provenance.settings import node_url


@dataclass(frozen=True, slots=True)
class Answer:
    """HTTP status and the whole body."""

    status: int
    body: bytes


class _DeadlineSocket(io.RawIOBase):
    """As much of a socket as http.client uses; each send and read has what is left of the time."""

    def __init__(self, link: socket.socket, deadline: float) -> None:
        self.link, self.deadline = link, deadline

    def sendall(self, data: bytes) -> None:
        self.link.settimeout(_left(self.deadline))
        self.link.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        self.link.settimeout(_left(self.deadline))
        return self.link.recv_into(cast(bytearray, buffer))

    def close(self) -> None:
        """http.client closes before the answer is read; whoever opened the link closes it."""


class Endpoint:
    """One base URL to ask.

    Args:
        url: ``https://...``, or ``http://`` to a loopback address.
        key: The configuration key the URL came from.
        timeout_s: The deadline of each call, in seconds.

    Raises:
        ConfigError: Not such a URL, or one that carries a user or password.
    """

    def __init__(self, url: str, key: str, timeout_s: float) -> None:
        parts = node_url(url, key)
        self.timeout_s = timeout_s
        self._host = cast(str, parts.hostname)
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._path, self._query = parts.path, parts.query
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self.where = shown_url(parts)

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        limit: int | None,
        timeout_s: float | None = None,
    ) -> Answer:
        """GET the base URL followed by ``path``; POST where there is a ``body``.

        A query of the base URL is sent each time, behind that of ``path``.

        Args:
            limit: The largest body that is taken, in bytes; None reads none, the status alone.
            timeout_s: Another deadline than the endpoint's.

        Raises:
            NetworkUnavailable: Refused, cut off, not HTTP, or past the deadline.
            LyingNodeError: A body beyond ``limit``.
        """
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        connection = http.client.HTTPConnection(self._host, self._port)
        method, url = "GET" if body is None else "POST", self._url(path)
        try:
            with self._connect(deadline) as link:
                connection.sock = cast(socket.socket, _DeadlineSocket(link, deadline))
                connection.request(method, url, body, {**(headers or {}), "Connection": "close"})
                with connection.getresponse() as response:
                    if limit is None:
                        return Answer(response.status, b"")
                    data = response.read(limit + 1)
                    if len(data) > limit:
                        raise LyingNodeError(f"{self.where} answered with more than {limit} bytes")
                    if response.length:
                        raise http.client.IncompleteRead(data, response.length)
                    return Answer(response.status, data)
        except TimeoutError as error:
            raise NetworkUnavailable(f"{self.where} did not answer in time") from error
        except http.client.HTTPException as error:
            problem = "broke off its answer or does not speak HTTP"
            raise NetworkUnavailable(f"{self.where} {problem}") from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise NetworkUnavailable(f"{self.where} cannot be reached: {reason}") from error

    def _url(self, path: str) -> str:
        url = (self._path.rstrip("/") + path if path else self._path) or "/"
        return f"{url}{'&' if '?' in path else '?'}{self._query}" if self._query else url

    def _connect(self, deadline: float) -> socket.socket:
        failure: OSError = OSError("no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM
        ):
            link = socket.socket(family, kind, protocol)
            try:
                link.settimeout(_left(deadline))
                link.connect(address)
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is None:
                    return link
                link.settimeout(_left(deadline))
                return self._tls.wrap_socket(link, server_hostname=self._host)
            except OSError as error:
                link.close()
                failure = error
        raise failure


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def shown_url(parts: SplitResult) -> str:
    """Scheme, host and port of a URL for messages: a path or query may hold an API key."""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
