"""IPFS: a head as a pinned raw block, through the HTTP RPC that Kubo and js-ipfs share.

Life of an anchor. The block is the 36-byte payload and its CID is known beforehand: CIDv1,
raw, SHA-256, computed here. ``broadcast`` adds and pins it and compares the CID that the
daemon names, decoded, with ours. ``observe`` asks for the pin and reads the bytes back.
Adding twice is adding once.

A CID proves what is stored, not when: there is no ``block_time``, and ``depth`` is 1 as
soon as a daemon holds the block. The client is ipfshttpclient: ``ipfs_client``.

Folders (bundles): ``add_folder`` adds one in one request, wrapped, and then works out from
the daemon's own blocks that the CID it names is of exactly these files. ``read_folder``
fetches one by its CID block by block; every block is compared with its CID, so that neither
the daemon nor whoever it asks has to be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping

from provenance.errors import FormatError, InputError, IntegrityError, LyingNodeError, RejectedError
from provenance.formats.record import Json
from provenance.ports.network import Network, require_payload
from provenance.ports.values import Draft, Identity, Observation, Place, SignedVersion, payload_root
from provenance.proofs.ipfs import unixfs
from provenance.proofs.ipfs.cid import Cid, decode_cid, raw_cid
from provenance.settings import IPFSSettings

MAX_BLOCK_BYTES = 1024
"""An anchor has 36 bytes; anything larger under a CID that is asked for is no anchor."""
CHUNK_BYTES = 262_144
"""Of a file in a folder, asked for by name: both daemons' default."""


class IPFSInterface(Network):
    """One IPFS daemon, whose methods raise as :class:`provenance.chains.ipfs_client.Daemon`'s.

    Raises:
        ConfigError: As :class:`provenance.chains.ipfs_client.Daemon`.
        MissingExtraError: ipfshttpclient is not installed.
    """

    name = "ipfs"
    confirmations = 1

    def __init__(self, settings: IPFSSettings) -> None:
        from provenance.chains.ipfs_client import CLIENT, Daemon

        self._client_name = CLIENT
        self._daemon = Daemon(settings)
        self._pin = settings.pin

    def client(self) -> str:
        """Name and version of the client library."""
        return self._client_name

    def identity(self) -> Identity:
        """The daemon's version and peer id."""
        version, about = self._daemon.version(), self._daemon.id()
        fields: dict[str, Json] = {
            "version": _field(version, "Version", "version"),
            "peer_id": _field(about, "ID", "id"),
            "agent": str(about.get("AgentVersion", ""))[:200],
        }
        return Identity(self.name, fields, height=None, sender=None, balance=None)

    def draft(self, payload: bytes, replaces: SignedVersion | None = None) -> Draft:
        """The CID of the payload. Talks to nobody; a replacement is the same block."""
        require_payload(self.name, payload, replaces)
        return Draft(self.name, payload, {"cid": str(raw_cid(payload))})

    def sign(self, draft: Draft, nonce: int | None) -> SignedVersion:
        """The payload itself; its CID is the transaction id."""
        return SignedVersion(self.name, draft.payload, str(raw_cid(draft.payload)), draft.payload)

    def broadcast(self, version: SignedVersion) -> None:
        """Add and pin the block.

        Raises:
            LyingNodeError: The daemon names another CID.
        """
        answer = self._daemon.add(version.raw, pin=self._pin)
        named = _decoded(_field(answer, "Hash", "add"))
        if named != raw_cid(version.raw):
            raise LyingNodeError(
                f"ipfs: add: the daemon names {named}, expected {version.transaction_id}"
            )

    def observe(self, version: SignedVersion) -> Observation:
        """MINED where the block is pinned and reads back equal; UNKNOWN where it is not pinned."""
        cid = raw_cid(version.payload)
        if self._pin and not self._pinned(cid):
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
        block = version.payload.hex()
        return {"type": "ipfs", "transaction_id": version.transaction_id, "block": block}

    def add_folder(self, files: Mapping[str, bytes]) -> Cid:
        """Add and pin a folder; its CID, which is known to be of exactly these files.

        Args:
            files: By path, ``/`` between its parts.

        Raises:
            InputError: More than fits one folder that :meth:`read_folder` reads.
            LyingNodeError: The daemon names a CID of something else, or does not pin it.
        """
        size = sum(map(len, files.values()))
        if size > unixfs.MAX_BYTES:
            raise InputError(f"ipfs: a folder of {size} bytes, at most {unixfs.MAX_BYTES}")
        objects = self._daemon.add_folder(files, CHUNK_BYTES)
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
        """One block; :mod:`unixfs` compares it with its CID."""
        return self._daemon.block(cid, unixfs.MAX_BLOCK_BYTES)

    def _read(self, cid: Cid) -> Observation:
        block = self._daemon.block(cid, MAX_BLOCK_BYTES)
        if raw_cid(block) != cid:
            raise LyingNodeError(f"ipfs: asked for {cid}, got other bytes")
        return Observation(Place.MINED, payload_root(block), depth=1, final=True)

    def _pinned(self, cid: Cid) -> bool:
        keys = self._daemon.pins(cid)
        if not isinstance(keys, dict):
            raise LyingNodeError("ipfs: pin/ls: expected an object of keys")
        return any(_decoded(key) == cid for key in keys)


def _field(answer: Mapping[str, Json], name: str, what: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise LyingNodeError(f"ipfs: {what}: no {name}")
    return value


def _decoded(text: str) -> Cid:
    try:
        return decode_cid(text)
    except FormatError as error:
        problem = "ipfs: the daemon names a CID that does not decode"
        raise LyingNodeError(f"{problem}: {error}") from error
