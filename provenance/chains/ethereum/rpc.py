"""The connection to an Ethereum node: one JSON-RPC call, one deadline, one answer believed.

web3.py's provider carries the calls, with its retries switched off: repeating is the
outbox's business. Every failure leaves here as an error of ``provenance.errors``; no URL
path, query or password (where hosted nodes keep their API key) reaches a message or a log.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import requests
import urllib3

from provenance.chains.ethereum.errors import clean, http_error, rpc_error
from provenance.chains.ethereum.libs import HTTPProvider, RPCEndpoint, RPCResponse
from provenance.chains.http import shown_url
from provenance.errors import LyingNodeError, NetworkUnavailable
from provenance.formats import json_text
from provenance.settings import is_loopback, node_url

Call = tuple[str, tuple[object, ...]]
"""Method and parameters of a JSON-RPC call."""

KEY = "blockchain.ethereum.url"
MAX_ANSWER_BYTES = 16 * 1024 * 1024
_CHUNK = 65536


def endpoint(url: str) -> str:
    """``scheme://host:port`` of an RPC URL: the part that may be shown. Raises ConfigError: not an
    http(s) URL, or plain HTTP to another machine."""
    return shown_url(node_url(url, KEY, credentials=True))


class _HideURL(logging.Filter):
    """Takes the secret parts of one URL out of urllib3's debug lines."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._path = urlsplit(url)._replace(scheme="", netloc="", fragment="").geturl()

    def filter(self, record: logging.LogRecord) -> bool:
        if len(self._path) > 1 and isinstance(record.args, tuple):
            record.args = tuple("(hidden)" if self._path == a else a for a in record.args)
        return True


class _Provider(HTTPProvider):
    """web3's HTTP provider with a deadline on the whole answer, a size limit and no retries."""

    def __init__(self, url: str, timeout_s: float) -> None:
        super().__init__(url, exception_retry_configuration=None)
        self.shown = endpoint(url)
        self._url = url
        self._timeout_s = timeout_s
        self._pid = os.getpid()
        self._session: requests.Session | None = None
        self._filter = _HideURL(url)
        logging.getLogger("urllib3.connectionpool").addFilter(self._filter)

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        request = self.encode_rpc_request(method, params)
        sent = json.loads(request)["id"]
        status, body = self._post(method, request)
        try:
            answer = json_text.loads(body)
        except ValueError:
            answer = None
            if 200 <= status < 300:
                raise NetworkUnavailable(
                    f"ethereum node {self.shown} answered {method} with something that is not "
                    f"JSON ({len(body)} bytes); is blockchain.ethereum.url an RPC address?"
                ) from None
        is_error = isinstance(answer, dict) and isinstance(answer.get("error"), dict)
        if not 200 <= status < 300 and (not is_error or status == 429):
            raise http_error(self.shown, status)
        problem = None
        if not isinstance(answer, dict) or ("result" in answer) == (
            answer.get("error") is not None
        ):
            problem = "JSON that is no JSON-RPC answer"
        elif answer.get("id") != sent and not (is_error and answer.get("id") is None):
            problem = "the id of another request"
        if problem is not None:
            raise LyingNodeError(f"ethereum node {self.shown} answered {method} with {problem}")
        return cast(RPCResponse, answer)

    def make_batch(self, calls: Sequence[Call]) -> dict[Call, object]:
        """Results by call, of one request (JSON-RPC 2.0, section 6); none where the node takes
        no batch. A call that failed, or was not answered, has none."""
        requests = [self.encode_rpc_request(RPCEndpoint(m), list(params)) for m, params in calls]
        sent = {str(json.loads(r)["id"]): call for r, call in zip(requests, calls, strict=True)}
        status, body = self._post("a batch", b"[" + b",".join(requests) + b"]")
        try:
            answers = json_text.loads(body)
        except ValueError:
            return {}
        if not 200 <= status < 300 or not isinstance(answers, list):
            return {}
        return {
            sent[str(answer["id"])]: answer["result"]
            for answer in answers
            if isinstance(answer, dict)
            and str(answer.get("id")) in sent
            and "result" in answer
            and answer.get("error") is None
        }

    def _post(self, method: str, request: bytes) -> tuple[int, bytes]:
        deadline = time.monotonic() + self._timeout_s
        try:
            with self._connection().post(
                self._url, request, timeout=self._timeout_s, allow_redirects=False, stream=True
            ) as response:
                body = bytearray()
                while chunk := response.raw.read1(_CHUNK, decode_content=True):
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        problem = f"sent over {MAX_ANSWER_BYTES} bytes in one answer"
                        raise LyingNodeError(f"ethereum node {self.shown} {problem}")
                    if time.monotonic() > deadline:
                        raise TimeoutError
                return response.status_code, bytes(body)
        except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError):
            raise NetworkUnavailable(
                f"ethereum node {self.shown} did not answer {method} within {self._timeout_s:g} s"
            ) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            # The library's message holds the URL's path; only the system's reason goes on.
            reason = _reason(error)
        raise NetworkUnavailable(f"ethereum node {self.shown} cannot be reached: {reason}")

    def _connection(self) -> requests.Session:
        # Sockets must not be shared across a fork.
        if self._session is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._session = requests.Session()
            self._session.headers.update(
                {"Content-Type": "application/json", "Accept-Encoding": "identity"}
            )
            # The environment's proxies have no business with a node on this machine.
            self._session.trust_env = not is_loopback(self._url)
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        logging.getLogger("urllib3.connectionpool").removeFilter(self._filter)


def _reason(error: BaseException) -> str:
    """The operating system's word for a failed connection, found along the causes."""
    seen: BaseException | None = error
    name = type(error).__name__
    for _ in range(8):
        if seen is None:
            break
        if not isinstance(seen, requests.RequestException):
            name = type(seen).__name__
            if isinstance(seen, OSError) and seen.strerror:
                return clean(seen.strerror).lower()
        inner = [a for a in seen.args if isinstance(a, BaseException)]
        reason = getattr(seen, "reason", None)
        if isinstance(reason, BaseException):
            inner.append(reason)
        seen = inner[0] if inner else (seen.__cause__ or seen.__context__)
    return name


class EthereumRPC:
    """JSON-RPC calls to one node.

    Args:
        url: The node's address; plain HTTP only on this machine.
        timeout_s: Deadline of each call, seconds.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self.shown = endpoint(url)
        self.provider = _Provider(url, timeout_s)
        self._takes_batches = True

    def call(self, method: str, *params: object) -> object:
        """The ``result`` of one call, unvalidated.

        Raises:
            NetworkUnavailable: Refused, timed out, not JSON, HTTP 429 or 5xx.
            LyingNodeError: JSON that is no JSON-RPC answer to this request.
            NetworkError: What the node's error object says, by ``errors.rpc_error``.
        """
        answer = self.provider.make_request(RPCEndpoint(method), list(params))
        error: object = answer.get("error")
        if error is None:
            return answer.get("result")
        fields = error if isinstance(error, dict) else {"message": error}
        code, message = fields.get("code"), fields.get("message")
        code = code if isinstance(code, int) else None
        raise rpc_error(method, code, "" if message is None else str(message), fields.get("data"))

    def batch(self, calls: Sequence[Call]) -> dict[Call, object]:
        """Results of several calls by one request, unvalidated; without those that failed. A node
        that takes no such request has none, and is not asked for one again. Raises
        NetworkUnavailable, LyingNodeError: refused or timed out, or too large."""
        if not calls or not self._takes_batches:
            return {}
        results = self.provider.make_batch(calls)
        self._takes_batches = bool(results)
        return results

    def close(self) -> None:
        """Give the connections back."""
        with contextlib.suppress(OSError):
            self.provider.close()


class AnsweredRPC(EthereumRPC):
    """A node's RPC, some of whose calls are answered already; the others it asks for.

    Args:
        answers: As :meth:`EthereumRPC.batch` gives them.
    """

    def __init__(self, rpc: EthereumRPC, answers: Mapping[Call, object]) -> None:
        self.shown, self.provider, self._takes_batches = rpc.shown, rpc.provider, False
        self._answers = answers
        self._methods = {method for method, _ in answers}

    def call(self, method: str, *params: object) -> object:
        """The answer that is there, or else the node's."""
        if method in self._methods and (method, params) in self._answers:
            return self._answers[method, params]
        return super().call(method, *params)
