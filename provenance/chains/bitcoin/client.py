"""bitcoinrpc, with the guarantees that it leaves to its event loop and its httpx client.

:func:`run` brings its coroutines to synchronous callers, and :class:`Transport` bounds and
checks an answer before bitcoinrpc reads it. Why each is needed, and what it costs:
``docs/decisions/0005-bitcoinrpc.md``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from provenance.errors import LyingNodeError, MissingExtraError, NetworkUnavailable
from provenance.formats import json_text

try:
    import httpx
    from bitcoinrpc import BitcoinRPC, RPCError, __version__
    from orjson import JSONDecodeError
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "bitcoinrpc", "bitcoin") from error

__all__ = ["CLIENT", "BitcoinRPC", "JSONDecodeError", "RPCError", "Transport", "httpx", "run"]

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
UNAUTHORIZED: Final = (401, 403)
CLIENT: Final = f"bitcoinrpc {__version__}"
_THREAD: Final = "bitcoinrpc"
_NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For plain HTTP, where httpx would make one for each client."""
T = TypeVar("T")


# One event loop per process, in a daemon thread of its own, runs every call. A loop in the
# caller's thread (asyncio.run) is refused where the caller is inside a loop already, and an
# exception that a signal handler raises there (Ctrl-C, Celery's soft time limit) would come
# up inside httpx; here it interrupts the caller, who cancels the call. Threads share the loop.
# A forked child (Celery's prefork) has no such thread, so it forgets the loop, and the lock
# that another thread may have held, and starts its own at its first call.
_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def run(call: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, for synchronous code in any thread or process. Raises Exception:
    whatever the coroutine raises."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name=_THREAD, daemon=True).start()
        future = asyncio.run_coroutine_threadsafe(call, _loop)
    try:
        return future.result()
    finally:
        future.cancel()  # does nothing where it is done


def _after_fork() -> None:
    global _lock, _loop
    _lock, _loop = threading.Lock(), None


os.register_at_fork(after_in_child=_after_fork)
# httpx logs every URL, and a URL's path may be an API key. Its other users keep their lines.
logging.getLogger("httpx").addFilter(lambda record: record.threadName != _THREAD)


class Transport(httpx.AsyncHTTPTransport):
    """One connection for one call: bounds the answer, and checks that it is JSON-RPC.

    Nothing is kept alive, so no connection can be found dead after a node's restart.
    Proxies of the environment are ignored. Redirects are answers like any other.

    Args:
        number: The ``id`` of the call.
        node: ``scheme://host:port``, for messages.
        tls: None for plain HTTP.
    """

    def __init__(self, method: str, number: int, node: str, tls: ssl.SSLContext | None) -> None:
        limits = httpx.Limits(max_keepalive_connections=0)
        super().__init__(verify=tls or _NO_TLS, trust_env=False, limits=limits)
        self._method, self._number, self._node = method, number, node

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The whole answer, without its headers, so that no encoding, cookie or redirect acts.

        Raises:
            NetworkUnavailable: The login is refused, or an error without JSON.
            LyingNodeError: Too large, not JSON-RPC, or an answer to another call.
            httpx.TransportError: No answer.
        """
        response = await super().handle_async_request(request)
        body = bytearray()
        try:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise LyingNodeError(
                        f"{self._node} answered with more than {MAX_ANSWER_BYTES} bytes"
                    )
        finally:
            await response.aclose()
        self._check(response.status_code, bytes(body))
        return httpx.Response(response.status_code, content=bytes(body))

    def _check(self, status: int, body: bytes) -> None:
        if status in UNAUTHORIZED:
            raise NetworkUnavailable(
                f"{self._node} refuses the login (HTTP {status}); "
                "check blockchain.bitcoin.cookie_file or rpc_user and its password"
            )
        try:
            reply = json_text.loads(body)
        except (ValueError, RecursionError) as error:
            if status == 200:
                raise LyingNodeError(f"bitcoin: {self._method}: the answer is not JSON") from error
            raise NetworkUnavailable(
                f"{self._node} answered {self._method} with HTTP {status}"
            ) from error
        if not isinstance(reply, dict) or reply.get("id") != self._number:
            raise LyingNodeError(f"bitcoin: {self._method}: the answer is to another question")
        refused = reply.get("error")
        if refused is None:
            if "result" not in reply:
                raise LyingNodeError(f"bitcoin: {self._method}: neither result nor error")
        elif not isinstance(refused, dict) or not isinstance(refused.get("code"), int):
            raise LyingNodeError(f"bitcoin: {self._method}: an error without a number")
        elif not isinstance(refused.get("message"), str):
            raise LyingNodeError(f"bitcoin: {self._method}: an error without a message")
