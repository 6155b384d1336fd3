"""IPFS: a head as a pinned raw block, through the HTTP RPC that Kubo and js-ipfs share.

Life of an anchor. The block is the 36-byte payload and its CID is known beforehand: CIDv1,
raw, SHA-256, computed here. ``broadcast`` adds and pins it and compares the CID that the
daemon names, decoded, with ours. ``observe`` asks for the pin and reads the bytes back.
Adding twice is adding once.

A CID proves what is stored, not when: there is no ``block_time``, and ``depth`` is 1 as
soon as a daemon holds the block. Why not ipfshttpclient: ``docs/decisions/ipfs-client.md``.

Folders (bundles): ``add_folder`` adds one in one request, wrapped, and then works out from
the daemon's own blocks that the CID it names is of exactly these files. ``read_folder``
fetches one by its CID block by block; every block is held against its CID, so that neither
the daemon nor whoever it asks has to be trusted.

RPC: docs.ipfs.tech/reference/kubo/rpc (``add``, ``pin/ls``, ``block/get``, ``version``, ``id``).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from provenance.chains.http import Endpoint
from provenance.errors import (
    FormatError,
    InputError,
    IntegrityError,
    LyingNodeError,
    NetworkUnavailable,
    RejectedError,
)
from provenance.formats import json_text
from provenance.formats.record import Json
from provenance.ports.values import (
    PAYLOAD_BYTES,
    PAYLOAD_TAG,
    Draft,
    Identity,
    Observation,
    Place,
    SignedVersion,
)
from provenance.proofs.ipfs import unixfs
from provenance.proofs.ipfs.cid import Cid, decode_cid, raw_cid
from provenance.settings import IPFSSettings

MAX_ANSWER_BYTES = 1024 * 1024
MAX_BLOCK_BYTES = 1024
"""An anchor has 36 bytes; anything larger under a CID that is asked for is no anchor."""
READ_SHARE = 0.5
"""Part of the deadline a daemon may search for a block, so that it can say it has none."""
CHUNK_BYTES = 262_144
"""Of a file in a folder, asked for by name: both daemons' default."""
FOLDER_ENTRY_S = 0.05
FOLDER_BYTES_PER_S = 1_000_000
"""How slow a daemon may be with a folder, beside the time for any call."""
HTTP_OK = 200


class _Refused(Exception):
    """The daemon's own error; never leaves this module."""

    def __init__(self, path: str, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(f"{path}: {message} (HTTP {status})")


class IPFSInterface:
    """One IPFS daemon as a :class:`provenance.ports.network.Network`.

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

    def add_folder(self, files: Mapping[str, bytes]) -> Cid:
        """Add and pin a folder; its CID, which is known to be of exactly these files.

        Args:
            files: By path, ``/`` between its parts.

        Raises:
            InputError: More than fits one folder that :meth:`read_folder` reads.
            LyingNodeError: The daemon names a CID of something else, or does not pin it.
            NetworkUnavailable
        """
        size = sum(map(len, files.values()))
        if size > unixfs.MAX_BYTES:
            raise InputError(f"ipfs: a folder of {size} bytes, at most {unixfs.MAX_BYTES}")
        boundary = secrets.token_hex(16)
        options = {
            "cid-version": "1",
            "raw-leaves": "true",
            "hash": "sha2-256",
            "chunker": f"size-{CHUNK_BYTES}",
            "pin": "true",
            "wrap-with-directory": "true",
            "progress": "false",
        }
        answer = self._ask(
            "add",
            options,
            _multipart(files, boundary),
            f"multipart/form-data; boundary={boundary}",
            limit=MAX_ANSWER_BYTES + 1024 * len(files),
            more_s=FOLDER_ENTRY_S * len(files) + size / FOLDER_BYTES_PER_S,
        )
        objects = [_object(line, "add") for line in answer.splitlines()]
        if not objects or objects[-1].get("Name") != "":
            raise LyingNodeError("ipfs: add: no folder around the files")
        root = _decoded(_field(objects[-1], "Hash", "add"))
        self._check_folder(root, files)
        if not self._pinned(root):
            raise LyingNodeError(f"ipfs: add: {root} was asked to be pinned, and is not")
        return root

    def _check_folder(self, root: Cid, files: Mapping[str, bytes]) -> None:
        """Chunks are known by their CIDs; only what ties them together is asked for."""
        own = {
            raw_cid(data[at : at + CHUNK_BYTES]): data[at : at + CHUNK_BYTES]
            for data in files.values()
            for at in range(0, len(data) or 1, CHUNK_BYTES)
        }

        def get(cid: Cid) -> bytes:
            known = own.get(cid)
            return self._block(cid) if known is None else known

        try:
            same = unixfs.read_folder(root, get) == dict(files)
        except (FormatError, IntegrityError) as error:
            raise LyingNodeError(f"ipfs: add: {root}: {error}") from error
        if not same:
            raise LyingNodeError(f"ipfs: add: {root} is of other files than those that were added")

    def read_folder(self, cid: Cid) -> dict[str, bytes]:
        """All files below a folder by path, from this daemon or through it from others.

        Raises:
            NetworkUnavailable: Also where nobody gave a block before the deadline.
            IntegrityError, FormatError: :func:`provenance.proofs.ipfs.unixfs.read_folder`.
        """
        return unixfs.read_folder(cid, self._block)

    def _block(self, cid: Cid) -> bytes:
        """One block; whoever calls holds it against its CID."""
        try:
            return self._call(
                "block/get",
                {"arg": str(cid), "timeout": self._patience()},
                limit=unixfs.MAX_BLOCK_BYTES,
            )
        except _Refused as error:
            raise NetworkUnavailable(f"ipfs: {cid}: {error}") from error

    def _patience(self) -> str:
        return f"{int(1000 * max(0.1, self._settings.timeout_s * READ_SHARE))}ms"

    def close(self) -> None:
        """Nothing is kept open."""

    def _read(self, cid: Cid) -> Observation:
        try:
            block = self._call(
                "block/get",
                {"arg": str(cid), "timeout": self._patience()},
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
        self,
        path: str,
        options: dict[str, str],
        body: bytes = b"",
        content_type: str = "",
        *,
        limit: int = MAX_ANSWER_BYTES,
        more_s: float = 0.0,
    ) -> bytes:
        try:
            return self._call(path, options, body, content_type, limit=limit, more_s=more_s)
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
        more_s: float = 0.0,
    ) -> bytes:
        headers = {"Content-Type": content_type} if content_type else {}
        if self._settings.auth is not None:
            headers["Authorization"] = self._settings.auth
        query = f"?{urlencode(options)}" if options else ""
        answer = self._endpoint.post(
            f"/api/v0/{path}{query}",
            body,
            headers,
            limit=limit,
            timeout_s=self._settings.timeout_s + more_s,
        )
        if answer.status == HTTP_OK:
            return answer.body
        try:
            message = str(_object(answer.body, path).get("Message", ""))
        except LyingNodeError:
            message = answer.body[:200].decode("utf-8", "replace")
        raise _Refused(path, answer.status, message[:300])


def _multipart(files: Mapping[str, bytes], boundary: str) -> bytes:
    """The body of ``add`` for a folder: names escaped, a folder's files side by side, folders
    inferred from names (docs.ipfs.tech/reference/kubo/rpc, ``add``). Parts that declare
    folders are optional; js-ipfs (ipfs-core 0.18) loses the files behind one.
    """
    parts = []
    for path in sorted(files):
        head = (
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="file"; filename="{quote(path, safe="")}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        parts += [head.encode(), files[path], b"\r\n"]
    return b"".join(parts) + f"--{boundary}--\r\n".encode()


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
