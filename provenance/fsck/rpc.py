"""JSON-RPC and HTTP POST, as little as the checker needs, on the standard library alone.

Each answer has a deadline per read and a largest size. Proxies of the environment are
ignored and redirects are not followed. Messages show scheme, host and port of a URL: a path
or query may hold an API key.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from provenance.errors import LyingNodeError, NetworkUnavailable
from provenance.formats import json_text

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
HTTP_OK: Final = 200
BATCH: Final = 100


class RefusedError(NetworkUnavailable):
    """The node's own error: it was reached, and did not answer the question."""

    def __init__(self, message: str, code: int | None = None) -> None:
        self.code = code
        super().__init__(message)


class Rpc:
    """One base URL.

    Args:
        name: How messages name the node.
        timeout_s: Of connecting, and of each read.
    """

    def __init__(
        self, name: str, url: str, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> None:
        parts = urlsplit(url)
        self._https = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._https else 80)
        self._path = parts.path.rstrip("/") + (f"?{parts.query}" if parts.query else "")
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})
        self._where = f"{name} at {parts.scheme}://{self._host}:{self._port}"

    def post(self, path: str, body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
        """HTTP status and body. Raises NetworkUnavailable: refused, cut off, not HTTP, or too slow;
        LyingNodeError: more than 256 MiB."""
        connect = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
        connection = connect(self._host, self._port, timeout=self._timeout_s)
        headers = {**self._headers, **({"Content-Type": kind} if kind else {})}
        try:
            connection.request("POST", (self._path + path) or "/", body, headers)
            answer = connection.getresponse()
            data = answer.read(MAX_ANSWER_BYTES + 1)
        except http.client.HTTPException as error:
            raise NetworkUnavailable(f"{self._where}: {type(error).__name__}") from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise NetworkUnavailable(f"{self._where}: {reason}") from error
        finally:
            connection.close()
        if len(data) > MAX_ANSWER_BYTES:
            raise LyingNodeError(f"{self._where}: more than {MAX_ANSWER_BYTES} bytes")
        return answer.status, data

    def call(self, method: str, *params: object, path: str = "") -> Any:
        """The result of one call. Raises RefusedError: with the node's own words;
        NetworkUnavailable, LyingNodeError."""
        answer = self._json(path, self._request(0, method, params))
        return self._result(method, answer)

    def batch(
        self, calls: Sequence[tuple[object, ...]], path: str = "", absent: Collection[int] = ()
    ) -> list[Any]:
        """The results of many calls ``(method, *params)``, in order, 100 to a request.

        Args:
            absent: Error codes that mean "there is none": the result is None.

        Raises:
            RefusedError, NetworkUnavailable, LyingNodeError: As :meth:`call`.
        """
        results: list[Any] = []
        for start in range(0, len(calls), BATCH):
            part = calls[start : start + BATCH]
            asked = [self._request(at, str(m), params) for at, (m, *params) in enumerate(part)]
            answer = self._json(path, asked)
            if isinstance(answer, dict):
                self._result("batch", answer)
            if not isinstance(answer, list) or not all(isinstance(a, dict) for a in answer):
                raise LyingNodeError(f"{self._where}: a batch was not answered by a list")
            by_id = {each.get("id"): each for each in answer}
            if by_id.keys() != set(range(len(part))):
                raise LyingNodeError(f"{self._where}: a batch was not answered in full")
            for at, (method, *_) in enumerate(part):
                try:
                    results.append(self._result(str(method), by_id[at]))
                except RefusedError as error:
                    if error.code not in absent:
                        raise
                    results.append(None)
        return results

    def _request(self, number: int, method: str, params: Sequence[object]) -> dict[str, object]:
        return {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}

    def _json(self, path: str, document: object) -> Any:
        status, data = self.post(path, json.dumps(document).encode(), "application/json")
        try:
            return json_text.loads(data)
        except (ValueError, RecursionError):
            raise RefusedError(f"{self._where}: HTTP {status}, and no JSON") from None

    def _result(self, method: str, answer: Any) -> Any:
        if not isinstance(answer, dict):
            raise LyingNodeError(f"{self._where}: {method}: no JSON-RPC answer")
        error = answer.get("error")
        if error is not None:
            said = error.get("message") if isinstance(error, dict) else error
            code = error.get("code") if isinstance(error, dict) else None
            raise RefusedError(
                f"{self._where}: {method}: {str(said)[:200]}",
                code if isinstance(code, int) else None,
            )
        return answer.get("result")
