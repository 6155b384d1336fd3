"""local: heads in a signed, hash-chained file on this machine; the fallback network.

Its lines are those of :mod:`provenance.proofs.local_file`, each with ``\\n``.

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

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance import files
from provenance.errors import (
    ConfigError,
    FormatError,
    IntegrityError,
    LyingNodeError,
    NetworkUnavailable,
    RejectedError,
)
from provenance.formats.record import Json
from provenance.ports.network import Network, require_payload
from provenance.ports.values import Draft, Identity, Observation, Place, SignedVersion, payload_root
from provenance.proofs.local_file import LocalLine, local_transaction_id, read_lines, write_line
from provenance.settings import LocalSettings

LOCK_TIMEOUT_S = 30.0
_ID = re.compile(r"local:[0-9a-f]{32}")


class _Chain:
    """Verified lines from the start of a file."""

    def __init__(self, public_key: bytes) -> None:
        self.public_key = public_key
        self.entries: list[LocalLine] = []
        self.by_id: dict[str, LocalLine] = {}
        self.size = 0
        self.seal = hashlib.sha256()
        """Over all bytes that were verified, to notice a change behind our back."""

    @property
    def last(self) -> LocalLine | None:
        return self.entries[-1] if self.entries else None

    def extend(self, data: bytes) -> None:
        """Verify complete lines behind those that are known."""
        data = data[: data.rfind(b"\n") + 1]
        for entry in read_lines(data, self.public_key, self.last):
            self.entries.append(entry)
            self.by_id.setdefault(local_transaction_id(entry.payload), entry)
        self.size += len(data)
        self.seal.update(data)


class LocalNetwork(Network):
    """The anchor file.

    Methods that read it raise NetworkUnavailable where they cannot, LyingNodeError where it does
    not verify.

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
        """File name, public key and number of lines."""
        key, lines = self.public_key.hex(), len(self._read().entries)
        fields: dict[str, Json] = {"file": self._path.name, "public_key": key}
        return Identity(self.name, fields, lines, sender=key, balance=None)

    def draft(self, payload: bytes, replaces: SignedVersion | None = None) -> Draft:
        """Nothing to prepare, once the payload is checked."""
        require_payload(self.name, payload, replaces)
        return Draft(self.name, payload, {})

    def sign(self, draft: Draft, nonce: int | None) -> SignedVersion:
        """The payload under its id; the line is signed when its place in the file is known."""
        txid, key = local_transaction_id(draft.payload), self.public_key.hex()
        return SignedVersion(self.name, draft.payload, txid, draft.payload, key)

    def broadcast(self, version: SignedVersion) -> None:
        """Append and sync; a payload that is there already is success.

        Raises:
            NetworkUnavailable: The file cannot be written, or another process holds it.
            ConfigError: It was opened with a public key alone.
        """
        if self._key is None:
            raise ConfigError("ledger_key_file", "missing, expected the key that signs the file")
        with self._locked(create=True) as descriptor:
            chain = self._refresh(descriptor, repair=True)
            if version.transaction_id in chain.by_id:
                os.fsync(descriptor)  # whoever wrote it may have died before this
                return
            now_ns = round(self._clock() * 1e6) * 1000
            line = write_line(chain.last, version.payload, now_ns, self._key.sign) + b"\n"
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
        """Find a line by its id. Raises RejectedError: not an id of this network."""
        if not _ID.fullmatch(transaction_id):
            raise RejectedError(
                f"local: {transaction_id[:80]!r} is no id, expected local: and 32 hex digits"
            )
        return self._seen(transaction_id)

    def evidence(self, version: SignedVersion, seen: Observation) -> dict[str, Json]:
        """The line and the public key that signed it. Raises NetworkUnavailable: the file does not
        have the payload (any more)."""
        entry = self._read().by_id.get(version.transaction_id)
        if entry is None:
            raise NetworkUnavailable(f"local: {version.transaction_id} is not in {self._path.name}")
        return {
            "type": "local",
            "transaction_id": version.transaction_id,
            "line": entry.line.decode(),
            "public_key": self.public_key.hex(),
        }

    def _seen(self, transaction_id: str) -> Observation:
        entry = self._read().by_id.get(transaction_id)
        if entry is None:
            return Observation(Place.UNKNOWN)
        root, line = payload_root(entry.payload), entry.digest.hex()
        return Observation(Place.MINED, root, line, entry.seq, 1, final=True, block_time=entry.ts)

    def _read(self) -> _Chain:
        if not self._path.exists():
            return _Chain(self.public_key)
        with self._locked(create=False) as descriptor:
            return self._refresh(descriptor, repair=False)

    @contextmanager
    def _locked(self, *, create: bool) -> Iterator[int]:
        """The open file: shared lock to read, exclusive lock to append."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if create else os.O_RDONLY
        with self._thread_lock:
            try:
                if create:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                fresh = create and not self._path.exists()
                descriptor = os.open(self._path, flags | os.O_CLOEXEC, 0o644)
                try:
                    files.lock(descriptor, shared=not create, wait_s=LOCK_TIMEOUT_S)
                    if fresh:
                        files.sync_directory(self._path.parent)
                    yield descriptor
                finally:
                    os.close(descriptor)
            except BlockingIOError as error:
                raise NetworkUnavailable(f"local: another process holds {self._path}") from error
            except OSError as error:
                raise NetworkUnavailable(f"local: {self._path}: {error.strerror}") from error

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
