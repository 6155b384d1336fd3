"""What stands before every answer: who asks by which name, how often, with which token.

The server trusts nothing that a request says of itself: a ``Host`` that is not one of its names
(DNS rebinding) is refused, ``X-Forwarded-For`` is not read, a token in the URL is none. What
another site's page loads from here is refused too: it may open a link, and no more.
"""

from __future__ import annotations

import base64
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import suppress
from itertools import chain
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from provenance.dashboard.tokens import Scope as TokenScope
from provenance.dashboard.tokens import TokenFile
from provenance.errors import ConfigError

API: Final = "/api/"
BURST: Final = 120.0
"""Requests that a client may make at once; afterwards `RATE` a second."""
RATE: Final = 10.0
WRONG_TOKEN: Final = 10.0
"""As many requests a wrong token costs."""
MAX_HEADER_BYTES: Final = 16 * 1024
"""Of all header fields together, and of the URL."""
_MAX_CLIENTS: Final = 4096
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Lets through to ``app`` what may pass; a HEAD is a GET whose body the server keeps.

    Args:
        names: By which browsers may call the server, beside the address that it is reached at.
        tokens: Where they are needed, each request needs one, on loopback too, where a proxy may
            be; else loopback alone is served.
    """

    def __init__(
        self,
        app: ASGIApp,
        names: Collection[str],
        tokens: TokenFile,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._names, self._tokens = app, {*names}, tokens
        self._limit = _Limit(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._refusal(scope) or self._app
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        return await answer(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """Why the request does not pass; else None, and whose runs it may see are its state."""
        headers, at_api = Headers(scope=scope), scope["path"].startswith(API)
        client = scope["client"][0] if scope["client"] else ""
        asked = len(scope["path"]) + len(scope["query_string"])
        if max(asked, sum(map(len, chain(*headers.raw)))) > MAX_HEADER_BYTES:
            return _refused(at_api, 431, f"expected at most {MAX_HEADER_BYTES} bytes of headers")
        if not self._is_own_name(headers.get("host", ""), scope["server"][0]):
            return _refused(
                at_api, 400, "Host: not a name of this server (provenance serve --name)"
            )
        foreign = headers.get("sec-fetch-site") == "cross-site"
        if foreign and headers.get("sec-fetch-mode") != "navigate":
            return _refused(at_api, 403, "asked for by another site's page")
        try:
            needed = self._tokens.needed() or not is_loopback(scope["server"][0])
            given = _given(headers) if needed else None
            holder = self._tokens.holder(given) if given else None
        except ConfigError as error:
            return _refused(at_api, 500, str(error))
        who = client if holder is None else f"{client} {holder.team}"
        if wait := self._limit.spend(who, WRONG_TOKEN if given and holder is None else 1.0):
            refused = _refused(at_api, 429, "too many requests")
            refused.headers["Retry-After"] = str(wait)
            return refused
        if not needed:
            scope["state"] = {"team": None}
            return None
        if holder is None:
            refused = _refused(at_api, 401, "expected a token: Authorization: Bearer TOKEN")
            how = "Bearer" if at_api else 'Basic realm="token as password", charset="UTF-8"'
            refused.headers["WWW-Authenticate"] = how
            return refused
        if not holder.scope.allows(TokenScope.READ):
            return _refused(at_api, 403, "this token may not read")
        scope["state"] = {"team": holder.sees}
        return None

    def _is_own_name(self, host: str, address: str) -> bool:
        """The name of a ``Host`` header (RFC 9110, 7.2), without its port."""
        name = host.partition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
        name = name.lower()
        if name in self._names or name == address:
            return True
        return name == "localhost" and is_loopback(address)


class _Limit:
    """A bucket of `BURST` requests for each client, of those that were seen last."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, client: str, cost: float) -> int:
        """Take one request's cost; 0, or the seconds to wait where there is not so much."""
        now = self._clock()
        left, seen = self._left.pop(client, (BURST, now))
        left = min(BURST, left + (now - seen) * RATE)
        enough = left >= cost
        self._left[client] = (left - cost if enough else left, now)
        if len(self._left) > _MAX_CLIENTS:
            self._left.popitem(last=False)
        return 0 if enough else 1 + int((cost - left) / RATE)


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address."""
    if address == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return False


def _given(headers: Headers) -> str | None:
    """The token of ``Authorization``: a bearer's, or the password that a browser asks for."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip() or None
    if kind.lower() == "basic":
        with suppress(ValueError):
            decoded = base64.b64decode(value, validate=True).decode()
            return decoded.partition(":")[2] or None
    return None


def _refused(at_api: bool, status: int, problem: str) -> Response:
    if at_api:
        return JSONResponse({"error": problem}, status)
    return PlainTextResponse(f"{problem}\n", status)
