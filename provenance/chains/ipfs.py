"""IPFS: a head as a pinned raw block, through the HTTP RPC that Kubo and js-ipfs share.

Life of an anchor. The block is the 36-byte payload and its CID is known beforehand: CIDv1,
raw, SHA-256, computed here. ``broadcast`` adds and pins it and compares the CID that the
daemon names, decoded, with ours. ``observe`` asks for the pin and reads the bytes back.
Adding twice is adding once.

A CID proves what is stored, not when: there is no ``block_time``, and ``depth`` is 1 as
soon as a daemon holds the block. Why not ipfshttpclient: ``docs/decisions/ipfs-client.md``.

RPC: docs.ipfs.tech/reference/kubo/rpc (``add``, ``pin/ls``, ``block/get``, ``version``, ``id``).
"""

from __future__ import annotations

import secrets
from urllib.parse import urlencode

from provenance.chains.post import Endpoint
from provenance.core import json_text
from provenance.core.cid import Cid, decode_cid, raw_cid
from provenance.core.records import Json
from provenance.errors import (
    FormatError,
    LyingNodeError,
    NetworkUnavailable,
    RejectedError,
)
from provenance.ports import (
    PAYLOAD_BYTES,
    PAYLOAD_TAG,
    Draft,
    Identity,
    Observation,
    Place,
    SignedVersion,
)
from provenance.settings import IPFSSettings

MAX_ANSWER_BYTES = 1024 * 1024
MAX_BLOCK_BYTES = 1024
"""An anchor has 36 bytes; anything larger under a CID that is asked for is no anchor."""
READ_SHARE = 0.5
"""Part of the deadline a daemon may search for a block, so that it can say it has none."""
HTTP_OK = 200


class _Refused(Exception):
    """The daemon's own error; never leaves this module."""

    def __init__(self, path: str, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(f"{path}: {message} (HTTP {status})")


class IPFSInterface:
    """One IPFS daemon as a :class:`provenance.ports.Network`.

    Raises:
        ConfigError: No URL, or plain HTTP outside loopback.
    """

    name = "ipfs"
    confirmations = 1
    uses_nonce = False

    def __init__(self, settings: IPFSSettings) -> None:
        self._endpoint = Endpoint(settings.url, "blockchain.ipfs.url", settings.timeout_s)
        self._settings = settings

    def identity(self) -> Identity:
        """The daemon's version and peer id.

        Raises:
            NetworkUnavailable, LyingNodeError
        """
        version = self._json("version", {})
        about = self._json("id", {})
        fields: dict[str, Json] = {
            "version": _field(version, "Version", "version"),
            "peer_id": _field(about, "ID", "id"),
            "agent": str(about.get("AgentVersion", ""))[:200],
        }
        return Identity(self.name, fields, height=None, sender=None, balance=None)

    def next_nonce(self) -> int:
        """0: there are none."""
        return 0

    def draft(self, payload: bytes, replaces: SignedVersion | None = None) -> Draft:
        """The CID of the payload. Talks to nobody; a replacement is the same block.

        Raises:
            RejectedError: Not an anchor's payload, or not that of the version it replaces.
        """
        if len(payload) != PAYLOAD_BYTES or not payload.startswith(PAYLOAD_TAG):
            raise RejectedError("ipfs: the payload is not the tag MLP1 and a 32-byte root")
        if replaces is not None and replaces.payload != payload:
            raise RejectedError("ipfs: a replacement must carry the payload of what it replaces")
        return Draft(self.name, payload, {"cid": str(raw_cid(payload))})

    def sign(self, draft: Draft, nonce: int | None) -> SignedVersion:
        """The payload itself; its CID is the transaction id."""
        return SignedVersion(self.name, draft.payload, str(raw_cid(draft.payload)), draft.payload)

    def broadcast(self, version: SignedVersion) -> None:
        """Add and pin the block.

        Raises:
            LyingNodeError: The daemon names another CID.
            NetworkUnavailable
        """
        boundary = secrets.token_hex(16)
        body = (
            f"--{boundary}\r\n"
            'Content-Disposition: form-data; name="file"; filename="head"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        body += version.raw + f"\r\n--{boundary}--\r\n".encode()
        options = {
            "cid-version": "1",
            "raw-leaves": "true",
            "hash": "sha2-256",
            "pin": "true" if self._settings.pin else "false",
            "progress": "false",
        }
        answer = self._ask("add", options, body, f"multipart/form-data; boundary={boundary}")
        lines = answer.splitlines()
        if len(lines) != 1:
            raise LyingNodeError(f"ipfs: add: {len(lines)} objects, expected one")
        named = _decoded(_field(_object(lines[0], "add"), "Hash", "add"))
        if named != raw_cid(version.raw):
            raise LyingNodeError(
                f"ipfs: add: the daemon names {named}, expected {version.transaction_id}"
            )

    def observe(self, version: SignedVersion) -> Observation:
        """MINED where the block is pinned and reads back equal; UNKNOWN where it is not pinned.

        Raises:
            NetworkUnavailable, LyingNodeError
        """
        cid = raw_cid(version.payload)
        if self._settings.pin and not self._pinned(cid):
            return Observation(Place.UNKNOWN)
        return self._read(cid)

    def lookup(self, transaction_id: str) -> Observation:
        """Read the block of a CID, from this daemon or through it from others.

        Raises:
            NetworkUnavailable: Also where nobody gave the block before the deadline, which
                does not prove that nobody has it.
            RejectedError: Not the CID of a raw SHA-256 block.
        """
        try:
            cid = decode_cid(transaction_id)
        except FormatError as error:
            raise RejectedError(f"ipfs: {transaction_id[:80]!r} is not a CID: {error}") from error
        if not cid.is_raw_sha256:
            raise RejectedError(f"ipfs: {cid} is not a raw SHA-256 block")
        return self._read(cid)

    def evidence(self, version: SignedVersion, seen: Observation) -> dict[str, Json]:
        """The CID and the block: whoever hashes the block gets the CID."""
        return {
            "type": "ipfs",
            "transaction_id": version.transaction_id,
            "block": version.payload.hex(),
        }

    def close(self) -> None:
        """Nothing is kept open."""

    def _read(self, cid: Cid) -> Observation:
        patience = max(0.1, self._settings.timeout_s * READ_SHARE)
        try:
            block = self._call(
                "block/get",
                {"arg": str(cid), "timeout": f"{int(patience * 1000)}ms"},
                limit=MAX_BLOCK_BYTES,
            )
        except _Refused as error:
            raise NetworkUnavailable(f"ipfs: {error}") from error
        if raw_cid(block) != cid:
            raise LyingNodeError(f"ipfs: asked for {cid}, got other bytes")
        root = None
        if len(block) == PAYLOAD_BYTES and block.startswith(PAYLOAD_TAG):
            root = block[len(PAYLOAD_TAG) :]
        return Observation(Place.MINED, root, depth=1, final=True)

    def _pinned(self, cid: Cid) -> bool:
        try:
            answer = self._call("pin/ls", {"arg": str(cid), "type": "recursive"})
        except _Refused as error:
            if "not pinned" in error.message:
                return False
            raise NetworkUnavailable(f"ipfs: {error}") from error
        keys = _object(answer, "pin/ls").get("Keys")
        if not isinstance(keys, dict):
            raise LyingNodeError("ipfs: pin/ls: expected an object of keys")
        return any(_decoded(key) == cid for key in keys)

    def _json(self, path: str, options: dict[str, str]) -> dict[str, Json]:
        return _object(self._ask(path, options), path)

    def _ask(
        self, path: str, options: dict[str, str], body: bytes = b"", content_type: str = ""
    ) -> bytes:
        try:
            return self._call(path, options, body, content_type)
        except _Refused as error:
            raise NetworkUnavailable(f"ipfs: {error}") from error

    def _call(
        self,
        path: str,
        options: dict[str, str],
        body: bytes = b"",
        content_type: str = "",
        *,
        limit: int = MAX_ANSWER_BYTES,
    ) -> bytes:
        headers = {"Content-Type": content_type} if content_type else {}
        if self._settings.auth is not None:
            headers["Authorization"] = self._settings.auth
        query = f"?{urlencode(options)}" if options else ""
        answer = self._endpoint.post(f"/api/v0/{path}{query}", body, headers, limit=limit)
        if answer.status == HTTP_OK:
            return answer.body
        try:
            message = str(_object(answer.body, path).get("Message", ""))
        except LyingNodeError:
            message = answer.body[:200].decode("utf-8", "replace")
        raise _Refused(path, answer.status, message[:300])


def _object(data: bytes, what: str) -> dict[str, Json]:
    try:
        value = json_text.loads(data)
    except (ValueError, RecursionError) as error:
        raise LyingNodeError(f"ipfs: {what}: the answer is not JSON") from error
    if not isinstance(value, dict):
        raise LyingNodeError(f"ipfs: {what}: expected an object")
    return value


def _field(answer: dict[str, Json], name: str, what: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise LyingNodeError(f"ipfs: {what}: no {name}")
    return value


def _decoded(text: str) -> Cid:
    try:
        return decode_cid(text)
    except FormatError as error:
        raise LyingNodeError(
            f"ipfs: the daemon names a CID that does not decode: {error}"
        ) from error
