"""local: heads in a signed, hash-chained file on this machine; the fallback network.

FORMAT, version 1. One line per anchored head, canonical JSON (RFC 8785) and ``\\n``::

    {"payload": 72 hex, "prev": 64 hex, "seq": n, "signature": 128 hex, "ts": RFC 3339, "v": 1}

``seq`` counts from 0; ``prev`` is the SHA-256 of the line before without its ``\\n`` (64
zeros in the first). ``signature`` is Ed25519 (RFC 8032) over ``ml-provenance/local/v1`` and
a zero byte, followed by the canonical JSON of the line without ``signature``.

A payload is in the file at most once, and its transaction id is ``local:`` and the first 32
hex digits of SHA-256(payload): known before it is written, and the same in every file.

Life of an anchor. ``broadcast`` takes the file's lock, reads what others added, appends
the line by one write and syncs it to the disk. A line without its ``\\n`` was cut off by a
crash before anybody was told of it: it is truncated. Anything else that does not verify
stops the network: nothing is appended behind a line that was tampered with.

``ts`` is this machine's clock and proves nothing to a third party; whoever holds the key can
rewrite the whole file. That is what the other networks are for.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from provenance.errors import (
    BadSignatureError,
    ConfigError,
    FormatError,
    IntegrityError,
    LyingNodeError,
    NetworkUnavailable,
    ProofError,
    RejectedError,
    TruncatedError,
    UnknownVersionError,
)
from provenance.formats import json_text
from provenance.formats.record import Json, canonical_json, timestamp
from provenance.ports.values import (
    PAYLOAD_BYTES,
    PAYLOAD_TAG,
    Draft,
    Identity,
    Observation,
    Place,
    SignedVersion,
)
from provenance.proofs.local_file import LOCAL_CONTEXT, LOCAL_VERSION, local_transaction_id
from provenance.settings import LocalSettings

FIRST_PREV = "0" * 64
LOCK_TIMEOUT_S = 30.0
_FIELDS = {"payload", "prev", "seq", "signature", "ts", "v"}
_ID = re.compile(r"local:[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class LocalEntry:
    """A verified line. ``digest`` is its SHA-256, ``ts`` Unix seconds by the writer's clock."""

    seq: int
    payload: bytes
    ts: float
    digest: bytes
    line: bytes


def verify_local_file(path: Path, public_key: bytes) -> tuple[LocalEntry, ...]:
    """Read a whole anchor file and check every line's order, chain and signature.

    Args:
        public_key: 32 bytes, Ed25519.

    Raises:
        NetworkUnavailable: The file cannot be read.
        TruncatedError: Its last line is cut off.
        FormatError, UnknownVersionError: A line that is not one of this format.
        ProofError: A line that is missing, doubled or out of order.
        BadSignatureError: A line that another key signed, or that was changed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NetworkUnavailable(f"local: cannot read {path}: {error.strerror}") from error
    if data and not data.endswith(b"\n"):
        raise TruncatedError(f"{path.name}: the last line is cut off")
    chain = _Chain(public_key)
    chain.extend(data)
    return tuple(chain.entries)


class _Chain:
    """Verified lines from the start of a file."""

    def __init__(self, public_key: bytes) -> None:
        self.key = Ed25519PublicKey.from_public_bytes(public_key)
        self.entries: list[LocalEntry] = []
        self.by_id: dict[str, LocalEntry] = {}
        self.size = 0
        self.seal = hashlib.sha256()
        """Over all bytes that were verified, to notice a change behind our back."""

    def extend(self, data: bytes) -> None:
        """Verify complete lines behind those that are known."""
        for line in data.split(b"\n")[:-1]:
            entry = self._verified(line)
            self.entries.append(entry)
            self.by_id.setdefault(local_transaction_id(entry.payload), entry)
            self.size += len(line) + 1
            self.seal.update(line + b"\n")

    @property
    def prev(self) -> str:
        return self.entries[-1].digest.hex() if self.entries else FIRST_PREV

    def _verified(self, line: bytes) -> LocalEntry:
        at = f"local anchor line {len(self.entries) + 1}"
        try:
            raw = json_text.loads(line)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{at}: not JSON") from error
        if not isinstance(raw, dict):
            raise FormatError(f"{at}: not an object")
        if raw.get("v") != LOCAL_VERSION:
            raise UnknownVersionError(f"{at}: version {raw.get('v')!r}, expected 1")
        if raw.keys() != _FIELDS or canonical_json(raw) != line:
            raise FormatError(f"{at}: not in canonical form")
        try:
            signature = bytes.fromhex(raw.pop("signature"))
            payload = bytes.fromhex(raw["payload"])
            ts = datetime.fromisoformat(raw["ts"]).timestamp()
        except (ValueError, TypeError) as error:
            raise FormatError(f"{at}: a field of the wrong type") from error
        if len(payload) != PAYLOAD_BYTES:
            raise FormatError(f"{at}: payload of {len(payload)} bytes, expected 36")
        try:
            self.key.verify(signature, LOCAL_CONTEXT + canonical_json(raw))
        except InvalidSignature as error:
            raise BadSignatureError(f"{at}: the signature does not fit") from error
        if raw["seq"] != len(self.entries) or raw["prev"] != self.prev:
            raise ProofError(f"{at}: it does not follow the line before")
        return LocalEntry(raw["seq"], payload, ts, hashlib.sha256(line).digest(), line)


class LocalNetwork:
    """The anchor file as a :class:`provenance.ports.network.Network`.

    Args:
        settings: Where the file is; made at the first broadcast.
        seed: 32 bytes, the Ed25519 private key; None where the file is read alone.
        clock: Unix time in seconds.
        public_key: 32 bytes, the key that the lines must be signed by; that of ``seed``
            where there is one.

    Raises:
        ConfigError: Neither key is given.
    """

    name = "local"
    confirmations = 1
    uses_nonce = False

    def __init__(
        self,
        settings: LocalSettings,
        seed: bytes | None,
        clock: Callable[[], float] = time.time,
        *,
        public_key: bytes | None = None,
    ) -> None:
        self._path = settings.path
        self._key = None if seed is None else Ed25519PrivateKey.from_private_bytes(seed)
        if self._key is not None:
            public_key = self._key.public_key().public_bytes_raw()
        if public_key is None:
            raise ConfigError("ledger_key_file", "missing, expected the key of the local network")
        self.public_key = public_key
        self._clock = clock
        self._chain = _Chain(self.public_key)
        self._thread_lock = threading.Lock()

    def identity(self) -> Identity:
        """File name, public key and number of lines.

        Raises:
            NetworkUnavailable, LyingNodeError: As every method that reads the file.
        """
        chain = self._read()
        fields: dict[str, Json] = {
            "file": self._path.name,
            "public_key": self.public_key.hex(),
        }
        return Identity(
            self.name, fields, len(chain.entries), sender=self.public_key.hex(), balance=None
        )

    def next_nonce(self) -> int:
        """0: there are none."""
        return 0

    def draft(self, payload: bytes, replaces: SignedVersion | None = None) -> Draft:
        """Nothing to prepare.

        Raises:
            RejectedError: Not an anchor's payload, or not that of the version it replaces.
        """
        if len(payload) != PAYLOAD_BYTES or not payload.startswith(PAYLOAD_TAG):
            raise RejectedError("local: the payload is not the tag MLP1 and a 32-byte root")
        if replaces is not None and replaces.payload != payload:
            raise RejectedError("local: a replacement must carry the payload of what it replaces")
        return Draft(self.name, payload, {})

    def sign(self, draft: Draft, nonce: int | None) -> SignedVersion:
        """The payload under its id; the line is signed when its place in the file is known."""
        return SignedVersion(
            self.name,
            draft.payload,
            local_transaction_id(draft.payload),
            draft.payload,
            key=self.public_key.hex(),
        )

    def broadcast(self, version: SignedVersion) -> None:
        """Append and sync; a payload that is there already is success.

        Raises:
            NetworkUnavailable: The file cannot be written, or another process holds it.
            LyingNodeError: The file does not verify; nothing is appended.
            ConfigError: It was opened with a public key alone.
        """
        if self._key is None:
            raise ConfigError("ledger_key_file", "missing, expected the key that signs the file")
        with self._locked(create=True) as descriptor:
            chain = self._refresh(descriptor, repair=True)
            if version.transaction_id in chain.by_id:
                os.fsync(descriptor)  # whoever wrote it may have died before this
                return
            fields: dict[str, Json] = {
                "v": LOCAL_VERSION,
                "seq": len(chain.entries),
                "payload": version.payload.hex(),
                "ts": timestamp(round(self._clock() * 1e6) * 1000),
                "prev": chain.prev,
            }
            fields["signature"] = self._key.sign(LOCAL_CONTEXT + canonical_json(fields)).hex()
            line = canonical_json(fields) + b"\n"
            written = os.write(descriptor, line)
            if written != len(line):
                os.ftruncate(descriptor, chain.size)
                raise NetworkUnavailable(f"local: the disk under {self._path} is full")
            os.fsync(descriptor)
            chain.extend(line)

    def observe(self, version: SignedVersion) -> Observation:
        """MINED at depth 1 and final where the file has the payload."""
        return self._seen(version.transaction_id)

    def lookup(self, transaction_id: str) -> Observation:
        """Find a line by its id.

        Raises:
            RejectedError: Not an id of this network.
            NetworkUnavailable, LyingNodeError
        """
        if not _ID.fullmatch(transaction_id):
            raise RejectedError(
                f"local: {transaction_id[:80]!r} is no id, expected local: and 32 hex digits"
            )
        return self._seen(transaction_id)

    def evidence(self, version: SignedVersion, seen: Observation) -> dict[str, Json]:
        """The line and the public key that signed it.

        Raises:
            NetworkUnavailable: The file does not have the payload (any more).
            LyingNodeError
        """
        entry = self._read().by_id.get(version.transaction_id)
        if entry is None:
            raise NetworkUnavailable(f"local: {version.transaction_id} is not in {self._path.name}")
        return {
            "type": "local",
            "transaction_id": version.transaction_id,
            "line": entry.line.decode(),
            "public_key": self.public_key.hex(),
        }

    def close(self) -> None:
        """Nothing is kept open."""

    def _seen(self, transaction_id: str) -> Observation:
        entry = self._read().by_id.get(transaction_id)
        if entry is None:
            return Observation(Place.UNKNOWN)
        root = None
        if entry.payload.startswith(PAYLOAD_TAG):
            root = entry.payload[len(PAYLOAD_TAG) :]
        return Observation(
            Place.MINED, root, entry.digest.hex(), entry.seq, 1, final=True, block_time=entry.ts
        )

    def _read(self) -> _Chain:
        if not self._path.exists():
            return _Chain(self.public_key)
        with self._locked(create=False) as descriptor:
            return self._refresh(descriptor, repair=False)

    @contextmanager
    def _locked(self, *, create: bool) -> Iterator[int]:
        """The open file: shared lock to read, exclusive lock to append."""
        with self._thread_lock, self._opened(create=create) as descriptor:
            yield descriptor

    @contextmanager
    def _opened(self, *, create: bool) -> Iterator[int]:
        try:
            if create:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = create and not self._path.exists()
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if create else os.O_RDONLY
            descriptor = os.open(self._path, flags | os.O_CLOEXEC, 0o644)
            try:
                self._lock(descriptor, fcntl.LOCK_EX if create else fcntl.LOCK_SH)
                if fresh:
                    _sync_folder(self._path.parent)
                yield descriptor
            finally:
                os.close(descriptor)
        except OSError as error:
            raise NetworkUnavailable(f"local: {self._path}: {error.strerror}") from error

    def _lock(self, descriptor: int, kind: int) -> None:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise NetworkUnavailable(
                        f"local: another process holds {self._path}"
                    ) from error
                time.sleep(0.01)
            else:
                return

    def _refresh(self, descriptor: int, *, repair: bool) -> _Chain:
        """Verify what was added since the last look; where the rest is not as it was, anew."""
        data = _read_all(descriptor)
        known = self._chain.size
        if hashlib.sha256(data[:known]).digest() != self._chain.seal.digest():
            self._chain, known = _Chain(self.public_key), 0
        try:
            self._chain.extend(data[known:])
        except (FormatError, IntegrityError) as error:
            self._chain = _Chain(self.public_key)
            raise LyingNodeError(
                f"local: {self._path} was changed or is of another key: {error}"
            ) from error
        if repair and self._chain.size < len(data):
            os.ftruncate(descriptor, self._chain.size)
            os.fsync(descriptor)
        return self._chain


def _read_all(descriptor: int) -> bytes:
    parts, offset = [], 0
    while part := os.pread(descriptor, 1 << 20, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
