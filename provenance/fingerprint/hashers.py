"""Content hash algorithms: `HashFactory` makes hashers, `Digest` is what they return.

WARNING: FROZEN FORMAT. The names and digest sizes below are written into records that an
auditor recomputes in ten years. Add an algorithm; never change what a name means.

==========  =====  ==================================================
name        bytes  source
==========  =====  ==================================================
blake3      32     BLAKE3 specification (2020), default output length
sha256      32     FIPS 180-4
sha512      64     FIPS 180-4
sha3-256    32     FIPS 202
blake2b     64     RFC 7693, unkeyed, full length
==========  =====  ==================================================

A digest is written ``<name>:<lower-case hex>``, such as ``sha256:e3b0...``. No clock and
no randomness; only `hash_file` does I/O: it reads the file that it is given.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from blake3 import blake3

from provenance.errors import ConfigError, FormatError, InputError

DEFAULT_ALGORITHM: Final = "blake3"
DIGEST_SIZES: Final[dict[str, int]] = {
    "blake3": 32,
    "sha256": 32,
    "sha512": 64,
    "sha3-256": 32,
    "blake2b": 64,
}
"""Digest size in bytes for each algorithm, in the order in which they are listed to users."""

THREADED_BYTES: Final = 1 << 20
"""From this many bytes on blake3 uses several threads."""
_MAX_THREADS: Final = 16
PIECE_BYTES: Final = 2 << 20
"""A file is read in pieces of so many bytes: they stay in the cache until they are hashed."""

Buffer = bytes | bytearray | memoryview
"""What a hasher takes: contiguous bytes."""


class Hasher(Protocol):
    """An incremental hash: the part of the hashlib interface that is used here."""

    def update(self, data: Buffer, /) -> object:
        """Add bytes."""

    def digest(self) -> bytes:
        """The digest of all bytes so far."""


_CONSTRUCTORS: Final[dict[str, Callable[..., Any]]] = {
    "blake3": blake3,
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
    "sha3-256": hashlib.sha3_256,
    "blake2b": hashlib.blake2b,
}


@dataclass(frozen=True, slots=True)
class Digest:
    """A content digest together with its algorithm.

    Args:
        algorithm: A name of the table above.
        value: The digest, as many bytes as the table says.

    Raises:
        FormatError: an unknown algorithm, or a value of another size.
    """

    algorithm: str
    value: bytes

    def __post_init__(self) -> None:
        wanted = DIGEST_SIZES.get(self.algorithm)
        if wanted is None:
            raise FormatError(
                f"digest: unknown algorithm {self.algorithm!r}, expected one of {_names()}"
            )
        if len(self.value) != wanted:
            raise FormatError(
                f"digest: {self.algorithm} has {wanted} bytes, found {len(self.value)}"
            )

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value.hex()}"

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``<algorithm>:<lower-case hex>``, the one form that ``str()`` writes.

        Raises:
            FormatError: no colon, an unknown algorithm, something other than lower-case
                hex, or a digest of another size; the message says which.
        """
        algorithm, colon, digits = text.partition(":")
        if not colon:
            raise FormatError(f"digest: no colon in {text[:80]!r}, expected '<algorithm>:<hex>'")
        strange = next((char for char in digits if char not in "0123456789abcdef"), None)
        if strange is not None:
            raise FormatError(f"digest: found {strange!r}, expected lower-case hex")
        if len(digits) % 2:
            raise FormatError(f"digest: odd number of hex digits ({len(digits)})")
        return cls(algorithm, bytes.fromhex(digits))


class HashFactory:
    """Makes hashers of one algorithm. Immutable, and safe to share between threads.

    Args:
        algorithm: ``blake3`` (default), ``sha256``, ``sha512``, ``sha3-256`` or ``blake2b``.

    Raises:
        ConfigError: another algorithm; the key is ``hash_algorithm``.
    """

    __slots__ = ("_algorithm", "_hasher_of")

    def __init__(self, algorithm: str = DEFAULT_ALGORITHM) -> None:
        if not isinstance(algorithm, str) or algorithm not in DIGEST_SIZES:
            raise ConfigError("hash_algorithm", f"found {algorithm!r}, expected one of {_names()}")
        self._algorithm = algorithm
        self._hasher_of = _CONSTRUCTORS[algorithm]

    def __repr__(self) -> str:
        return f"HashFactory({self._algorithm!r})"

    @property
    def algorithm(self) -> str:
        """The algorithm's name."""
        return self._algorithm

    @property
    def digest_size(self) -> int:
        """Bytes in a digest."""
        return DIGEST_SIZES[self._algorithm]

    def new(self, size: int = 0, used: Hasher | None = None) -> Hasher:
        """A fresh hasher.

        Args:
            size: Bytes that are going to be hashed, when known. From 1 MiB on, blake3 uses
                several threads; the digest is the same.
            used: An earlier hasher for 1 MiB or more, no longer needed: blake3 begins it anew,
                with the threads that it has.
        """
        if self._algorithm != "blake3":
            plain: Hasher = self._hasher_of()
            return plain
        if used is None or size < THREADED_BYTES:
            return blake3(max_threads=_threads(size))
        used.reset()  # type: ignore[attr-defined]  # only blake3 is threaded
        return used

    def one_by_one(self) -> Callable[[Buffer], bytes]:
        """A function from one short message after another to its digest, for one thread."""
        hasher_of = self._hasher_of
        if self._algorithm != "blake3":
            return lambda message: hasher_of(message).digest()
        hasher = hasher_of()
        reset, update, finish = hasher.reset, hasher.update, hasher.digest

        def digest(message: Buffer) -> bytes:
            reset()  # in less time than a new hasher takes
            update(message)
            value: bytes = finish()
            return value

        return digest

    def wrap(self, value: bytes) -> Digest:
        """A finished hasher's bytes as a `Digest` of this algorithm."""
        return Digest(self._algorithm, value)

    def digest(self, data: Buffer) -> Digest:
        """The digest of ``data``: any contiguous buffer, hashed as its bytes lie in memory."""
        view = memoryview(data)
        hasher = self.new(view.nbytes)
        if view.nbytes:  # a view with a 0 in its shape cannot be cast
            hasher.update(view.cast("B"))
        return self.wrap(hasher.digest())

    def digest_file(self, path: str | os.PathLike[str]) -> Digest:
        """The digest of a file's bytes, read piece by piece.

        Raises:
            InputError: the file is missing, cannot be read, or changed its size meanwhile.
        """
        return self.wrap(hash_file(Path(path), self.new))


def hash_file(path: Path, begun: Callable[[int], Hasher]) -> bytes:
    """The digest of a hasher that was ``begun`` for a file of so many bytes, and its bytes.

    Never by memory mapping: where another process truncates the file, or a network disk fails,
    touching the map ends this process by SIGBUS.

    Raises:
        InputError: the file is missing, cannot be read, or changed its size meanwhile.
    """
    try:
        with path.open("rb", buffering=0) as file:
            size, total = os.fstat(file.fileno()).st_size, 0
            hasher = begun(size)
            view = memoryview(bytearray(min(size + 1, PIECE_BYTES)))
            while count := file.readinto(view):
                hasher.update(view[:count])
                total += count
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    if total != size:
        raise InputError(
            f"data file {str(path)!r}: changed while it was read: {total} of {size} bytes"
        )
    return hasher.digest()


def _threads(size: int) -> int:
    """Threads for ``size`` bytes: from 1 MiB on, one for each processor.

    A fixed number and not ``blake3.AUTO``: AUTO uses one thread pool for the whole process,
    and a child forked after its first use (a pre-forking worker, a data loader) waits for
    ever on threads that it does not have. A fixed number makes a pool per hasher.
    """
    return 1 if size < THREADED_BYTES else min(os.cpu_count() or 1, _MAX_THREADS)


def _names() -> str:
    return ", ".join(DIGEST_SIZES)
