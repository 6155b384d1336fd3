"""The application and its server, which drops whom it has to wait for."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Collection
from typing import Final

import h11
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.h11_impl import H11Protocol

from provenance.dashboard import api, pages
from provenance.dashboard.guard import API, HEADERS, MAX_HEADER_BYTES, Guard, is_loopback
from provenance.dashboard.tokens import TokenFile
from provenance.errors import (
    InputError,
    IntegrityError,
    ProvenanceError,
    StoreUnavailable,
    UnavailableError,
    UnknownRunError,
)
from provenance.report.html import version
from provenance.settings import Settings

REQUEST_S: Final = 10.0
"""Seconds in which a whole request must have come."""
STALLED_S: Final = 60.0
"""Seconds in which a client must take some of what waits for it."""
MAX_CONNECTIONS: Final = 128
MAX_OF_CLIENT: Final = 32
"""Connections of one address."""
_ANSWERS: Final = (
    (UnknownRunError, 404, None),
    (InputError, 404, None),
    (StoreUnavailable, 503, "the database does not answer; ask again"),
    (UnavailableError, 503, None),
    (IntegrityError, 500, "evidence that is asked for cannot be read; the server's log says why"),
    (ProvenanceError, 500, "this deployment cannot be read; the server's log says why"),
)
"""Status and, instead of a message that names addresses and files, which the log has, the words."""
_log: Final = logging.getLogger("uvicorn.error")


def application(settings: Settings, tokens: TokenFile, names: Collection[str] = ()) -> Guard:
    """The dashboard and the API of a deployment behind their :class:`Guard`."""
    app = FastAPI(
        title="ml-provenance",
        version=version(),
        description="Runs of a deployment, their anchors and their evidence. Read only.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.include_router(api.router)
    app.include_router(pages.router)

    @app.exception_handler(ProvenanceError)
    def known(request: Request, error: Exception) -> Response:
        status, told = next((c, text) for kind, c, text in _ANSWERS if isinstance(error, kind))
        if told is not None:
            _log.warning("%s", error)
        return _told(request, status, told or str(error))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:]))
        return _told(request, 422, f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        answer = _told(request, error.status_code, error.detail)
        answer.headers.update(error.headers or {})
        if error.status_code == 405:
            answer.headers["Allow"] = "GET, HEAD"
        return answer

    return Guard(app, names, tokens)


def _told(request: Request, status: int, problem: str) -> Response:
    if request.url.path.startswith(API):
        answer: Response = JSONResponse({"error": problem}, status)
    else:
        answer = pages.page("error.html.j2", status=status, problem=problem)
        answer.status_code = status
    if status == 503:
        answer.headers["Retry-After"] = "5"
    return answer


def listening(host: str, port: int, tokens: TokenFile) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: The address cannot be used, others reach it and there is no token, or the file
            of tokens is not there.
    """
    if tokens.needed() and not tokens.path.exists():
        raise InputError(
            f"--tokens: {tokens.path}: no such file; expected one made by: provenance token new"
        )
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise InputError(f"--host: {host[:200]}: {error.strerror}") from error
    if not is_loopback(str(address[0])) and not tokens.read():
        raise InputError(
            f"--host: {host} is reached from other machines and {tokens.path} has no token; make "
            "one with: provenance token new TEAM"
        )
    server = socket.socket(family, kind, number)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen(MAX_CONNECTIONS)
    except OSError as error:
        server.close()
        raise InputError(f"--host, --port: {host} port {port}: {error.strerror}") from error
    return server


def serve(app: Guard, server: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM."""
    uvicorn.Server(
        uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,  # a token that somebody put into a URL is not kept
            server_header=False,
            proxy_headers=False,
            headers=[*HEADERS.items()],  # of uvicorn's own answers too
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )
    ).run(sockets=[server])


class _Protocol(H11Protocol):
    """Closes a connection whose request has not come whole in time, or whose answer is not taken:
    uvicorn would wait for ever."""

    _late: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        self._late = self.loop.call_later(REQUEST_S, transport.abort)
        own = [other for other in self.connections if isinstance(other, _Protocol)]
        if sum(other._host == self._host for other in own) > MAX_OF_CLIENT:
            transport.abort()

    @property
    def _host(self) -> str | None:
        return self.client[0] if self.client else None

    def handle_events(self) -> None:
        """Bytes came, or the next request's turn did."""
        super().handle_events()
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._in_time()
        elif self._late is None:
            self._late = self.loop.call_later(REQUEST_S, self.transport.abort)

    def pause_writing(self) -> None:
        """The client takes less than it is sent."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It has taken what there was."""
        super().resume_writing()
        self._taken()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._in_time()
        self._taken()
        super().connection_lost(exc)

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _taken(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
