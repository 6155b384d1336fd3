"""ipfshttpclient's ``Client``, with one POST under one deadline as its transport.

ipfshttpclient 0.7.0 words the requests and reads the answers. Its own transport has neither
a deadline over a whole answer nor a bound on its size, and reads proxies and passwords from
the environment; so the session it works with has :class:`_Transport` and no other, which
sends through :mod:`provenance.chains.http`. ``docs/decisions/0006-ipfshttpclient.md`` measures it.

RPC: docs.ipfs.tech/reference/kubo/rpc (``add``, ``pin/ls``, ``block/get``, ``version``, ``id``).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from provenance.chains.http import Endpoint
from provenance.errors import ConfigError, LyingNodeError, MissingExtraError, NetworkUnavailable
from provenance.formats import json_text
from provenance.formats.record import Json
from provenance.proofs.ipfs.cid import Cid
from provenance.settings import IPFSSettings

try:
    import ipfshttpclient
    import requests
    from ipfshttpclient import multipart
    from ipfshttpclient.http_requests import ClientSync
except ModuleNotFoundError as error:
    package = (error.name or "ipfshttpclient").partition(".")[0]
    raise MissingExtraError(package, "ipfs") from error

MAX_ANSWER_BYTES = 1024 * 1024
READ_SHARE = 0.5
"""Part of the deadline a daemon may search for a block, so that it can say it has none."""
FOLDER_ENTRY_S = 0.05
FOLDER_BYTES_PER_S = 1_000_000
"""How slow a daemon may be with a folder, beside the time for any call."""
CLIENT = f"ipfshttpclient {ipfshttpclient.__version__}"

_BASE = "api/v0"
_HTTP_OK = 200
_ADD = {"cid-version": 1, "raw-leaves": True, "hash": "sha2-256", "progress": False}


class RefusedError(NetworkUnavailable):
    """The daemon answers with an error of its own."""


class Daemon:
    """The RPC of one IPFS daemon (Kubo, js-ipfs).

    Every method raises NetworkUnavailable where the daemon does not answer before the
    deadline, RefusedError where it answers with an error, and LyingNodeError where the answer
    is too large or not of the RPC's form.

    Raises:
        ConfigError: No URL, plain HTTP outside loopback, a user or password in the URL, a
            host that no multiaddr can name, or an ``auth`` that no header can carry.
    """

    def __init__(self, settings: IPFSSettings) -> None:
        self._settings = settings
        self._endpoint = Endpoint(settings.url, "blockchain.ipfs.url", settings.timeout_s)
        parts = urlsplit(settings.url)
        host = str(parts.hostname)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        family = "ip6" if ":" in host else "dns"
        self._address = f"/{family}/{host}/tcp/{port}/{parts.scheme}"
        self._headers = {} if settings.auth is None else {"Authorization": settings.auth}
        try:
            ipfshttpclient.Client(self._address)
        except ipfshttpclient.exceptions.AddressError as error:
            problem = f"found host {host!r}, expected one a multiaddr can name"
            raise ConfigError("blockchain.ipfs.url", problem) from error
        try:
            requests.Request("POST", "http://localhost", self._headers).prepare()
        except requests.exceptions.InvalidHeader as error:
            problem = "found a text that an HTTP header cannot carry"
            raise ConfigError("blockchain.ipfs.auth", problem) from error

    def version(self) -> Mapping[str, Json]:
        """The answer of ``version``."""
        with self._client() as client:
            return cast("dict[str, Json]", client.version().as_json())

    def id(self) -> Mapping[str, Json]:
        """The answer of ``id``: who the daemon is among its peers."""
        with self._client() as client:
            return cast("dict[str, Json]", client.id().as_json())

    def add(self, data: bytes, *, pin: bool) -> Mapping[str, Json]:
        """Add one raw block of at most a chunk; the daemon's answer, which names its CID."""
        # Client.add writes its own options over these, in the order they stand in here.
        own: dict[str, Any] = {"cid_version": 1, "raw_leaves": True, "pin": pin}
        with self._client() as client:
            added = client.add(io.BytesIO(data), **own, opts=_ADD)
            return cast("dict[str, Json]", added.as_json())

    def add_folder(self, files: Mapping[str, bytes], chunk_bytes: int) -> list[dict[str, Json]]:
        """Add and pin files as one folder; an answer for each of them, then the folder's.

        ``Client.add`` takes a folder from a disk only, and cuts other names down to what
        stands behind the last slash; so the body is written here, by ipfshttpclient's writer.
        """
        size = sum(map(len, files.values()))
        own = {"chunker": f"size-{chunk_bytes}", "pin": True, "wrap-with-directory": True}
        options, body = _ADD | own, _Folder(files, chunk_bytes)
        more_s = FOLDER_ENTRY_S * len(files) + size / FOLDER_BYTES_PER_S
        with self._client(MAX_ANSWER_BYTES + 1024 * len(files), more_s) as client:
            answer = client._client.request(
                "/add", decoder="json", data=body.body(), headers=body.headers(), opts=options
            )
            return cast("list[dict[str, Json]]", answer)

    def pins(self, cid: Cid) -> Json:
        """The keys that ``pin/ls`` names for one CID; none where it is not pinned."""
        try:
            with self._client() as client:
                answer = client.pin.ls(str(cid), type="recursive").as_json()
        except RefusedError as error:
            if "not pinned" in str(error):
                return {}
            raise
        return cast(Json, answer.get("Keys"))

    def block(self, cid: Cid, limit: int) -> bytes:
        """Bytes that the daemon gives for a CID, at most ``limit``; the caller compares them."""
        patience = f"{int(1000 * max(0.1, self._settings.timeout_s * READ_SHARE))}ms"
        with self._client(limit) as client:
            return bytes(client.block.get(str(cid), opts={"timeout": patience}))

    @contextmanager
    def _client(self, limit: int = MAX_ANSWER_BYTES, more_s: float = 0.0) -> Iterator[Any]:
        """A client of this daemon for one call, which costs 0.1 ms; answers have at most
        ``limit`` bytes, and ``more_s`` seconds beyond the deadline of any call."""
        # The backend is named: PY_IPFS_HTTP_CLIENT_PREFER_HTTPX would choose another.
        backend = ClientSync(self._address, _BASE)
        backend._session = session = requests.Session()
        session.trust_env = False
        session.headers.clear()
        session.headers.update(self._headers)
        session.adapters.clear()
        session.mount("http", _Transport(self._endpoint, limit, more_s))
        client = ipfshttpclient.Client(self._address, _BASE)
        client._client = backend
        try:
            yield client
        except (ipfshttpclient.exceptions.Error, requests.RequestException) as error:
            problem = f"an answer that ipfshttpclient cannot read ({type(error).__name__})"
            raise LyingNodeError(f"ipfs: {problem}") from error


class _Transport(requests.adapters.BaseAdapter):
    """Sends through an :class:`Endpoint` and lets only answers of the RPC's form through.

    Any status but 200 ends here, so there is no redirect to follow. JSON is read here first:
    ipfshttpclient's decoder takes time quadratic in the size of what is not JSON.
    """

    def __init__(self, endpoint: Endpoint, limit: int, more_s: float) -> None:
        super().__init__()
        self._endpoint, self._limit = endpoint, limit
        self._timeout_s = endpoint.timeout_s + more_s

    def send(self, request: requests.PreparedRequest, *_: object, **__: object) -> Any:
        """POST the request; its body, which may come in pieces, goes out as one."""
        headers = {k: v for k, v in request.headers.items() if k != "Transfer-Encoding"}
        body = b"".join(cast("Iterator[bytes]", request.body or ()))
        # The RPC's booleans are JSON's, not Python's.
        url = request.path_url.replace("=True", "=true").replace("=False", "=false")
        answer = self._endpoint.ask(
            url, body, headers, limit=self._limit, timeout_s=self._timeout_s
        )
        parts = urlsplit(url)
        call = parts.path.removeprefix(f"/{_BASE}/")
        if answer.status != _HTTP_OK:
            for subject in parse_qs(parts.query).get("arg", ()):
                call = f"{subject}: {call}"
            message = _message(answer.body)
            raise RefusedError(f"ipfs: {call}: {message} (HTTP {answer.status})")
        if call != "block/get":
            _check(call, answer.body, several="wrap-with-directory=true" in url)
        response = requests.Response()
        response.status_code = answer.status
        response.raw = io.BytesIO(answer.body)
        return response

    def close(self) -> None:
        """Nothing is kept open."""


def _message(body: bytes) -> str:
    """The text of an error: the RPC's ``Message``, or else what came."""
    try:
        return str(json_text.loads(body)["Message"])[:300]
    except (ValueError, RecursionError, TypeError, LookupError):
        return body[:200].decode("utf-8", "replace")


def _check(call: str, body: bytes, *, several: bool) -> None:
    """One JSON object, or ``several``, a line each."""
    try:
        objects = [json_text.loads(line) for line in body.splitlines()]
    except (ValueError, RecursionError) as error:
        raise LyingNodeError(f"ipfs: {call}: the answer is not JSON") from error
    if not several and len(objects) != 1:
        raise LyingNodeError(f"ipfs: {call}: {len(objects)} objects, expected one")
    for value in objects:
        if not isinstance(value, dict):
            raise LyingNodeError(f"ipfs: {call}: expected an object")
        if value.get("Type") == "error":
            raise RefusedError(f"ipfs: {call}: {str(value.get('Message'))[:300]}")


class _Folder(multipart.StreamBase, multipart.StreamFileMixin):  # type: ignore[misc]  # the library has no types
    """The body of ``add`` for a folder: names escaped, a folder's files side by side, folders
    inferred from names (docs.ipfs.tech/reference/kubo/rpc, ``add``). Parts that declare
    folders are optional, and js-ipfs (ipfs-core 0.18) answers some of them with an error.
    """

    def __init__(self, files: Mapping[str, bytes], chunk_bytes: int) -> None:
        super().__init__("folder", chunk_bytes)
        self._files = files

    def headers(self) -> dict[str, str]:
        """The request's headers; this boundary, hex digits, needs no quotes."""
        return {"Content-Type": f"multipart/form-data; boundary={self._boundary}"}

    def _body(self) -> Iterator[bytes]:
        for path in sorted(self._files):
            yield from self._gen_file(
                path, file=io.BytesIO(self._files[path]), content_type="application/octet-stream"
            )
        yield from self._gen_end()
