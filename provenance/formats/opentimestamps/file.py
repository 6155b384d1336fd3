"""OpenTimestamps: a file's digest, and the operations from it to what attests to a time.

WARNING: FROZEN FORMAT. Proofs that were handed out are read by this file, and the stock
client (python-opentimestamps) reads the same bytes. A change here makes them unverifiable.
No I/O, no clock, no randomness.

::

    file      = magic (31 bytes) || varuint 1 || hash operation || digest || timestamp
    timestamp = (FF item)* item            a node: all that is known of one message
    item      = 00 attestation | operation timestamp
    operation = F0 varbytes  append      02 sha1        F2 reverse
                F1 varbytes  prepend     03 ripemd160   F3 hexlify
                08           sha256      67 keccak256
    attestation = tag (8 bytes) || varbytes payload
      0588960d73d71901  Bitcoin: varuint height; the message is that block's Merkle root
      83dfe30d2ef90c8e  pending: varbytes URI of a calendar that knows the message
      any other         kept as it is
    varuint   = base 128, little-endian, high bit on all bytes but the last
    varbytes  = varuint length || bytes

In a node attestations stand before operations, each sorted: attestations by tag, then height,
URI or payload; operations by tag, then argument. The last item has no FF before it.

Limits, those of the reference: a message or an argument has at most 4,096 bytes, an
attestation's payload 8,192, a URI 1,000, a walk 255 operations. Beyond the reference: a file
has at most 64 KiB, a height at most 2^63 - 1, and 16 operations are keccak256, which is slow.
Like the reference this reads varuints that are longer than they need be, repeated items and
items in any order; :meth:`TimestampFile.decode` with ``canonical`` refuses them.

Source: python-opentimestamps 0.4.5, ``opentimestamps/core/{op,notary,timestamp,serialize}.py``.

Errors: what cannot be written raises ``InputError``, bytes that do not decode a
``FormatError`` that says where.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from provenance.errors import (
    FormatError,
    InputError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
    UnknownVersionError,
)
from provenance.formats.opentimestamps.operations import (
    APPEND_TAG,
    BITCOIN_TAG,
    DIGEST_BYTES,
    KECCAK256_TAG,
    MAX_HEIGHT,
    MAX_MESSAGE_BYTES,
    MAX_URI_BYTES,
    NAMES,
    PENDING_TAG,
    PREPEND_TAG,
    SHA256,
    SHA256_TAG,
    UNARY,
    Attestation,
    Bitcoin,
    Operation,
    Pending,
    Unknown,
    append,
    operations,
    prepend,
    rank,
    varuint,
)
from provenance.formats.opentimestamps.tree import MAX_OPERATIONS, Timestamp

__all__ = [
    "SHA256",
    "Attestation",
    "Bitcoin",
    "Operation",
    "Pending",
    "Timestamp",
    "TimestampFile",
    "Unknown",
    "append",
    "operations",
    "prepend",
]

MAGIC: Final = b"\x00OpenTimestamps\x00\x00Proof\x00\xbf\x89\xe2\xe8\x84\xe8\x92\x94"
VERSION: Final = 1
MAX_FILE_BYTES: Final = 64 * 1024
MAX_PAYLOAD_BYTES: Final = 8192
MAX_KECCAKS: Final = 16
"""In one file: a millisecond for each 270 bytes."""
_TAG_BYTES: Final = 8
_FORK: Final = 0xFF
_ATTESTATION: Final = 0x00


# --- the file ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TimestampFile:
    """A detached timestamp file: ``timestamp.message`` is a file's digest by ``hashed_with``."""

    timestamp: Timestamp
    hashed_with: Operation = SHA256

    def encode(self) -> bytes:
        """The bytes of an ``.ots`` file.

        Raises:
            InputError: The message has not the hash's length, or nothing is known of one.
            TooLargeError: A walk of more than 255 operations, or more than 64 KiB.
        """
        if len(self.timestamp.message) != DIGEST_BYTES.get(self.hashed_with.tag):
            raise InputError(f"{self.hashed_with.name}: not its digest to begin with")
        out = bytearray(MAGIC) + varuint(VERSION)
        out.append(self.hashed_with.tag)
        out += self.timestamp.message
        out += self.timestamp.encode()
        if len(out) > MAX_FILE_BYTES:
            raise TooLargeError(f"a proof of {len(out)} bytes, at most {MAX_FILE_BYTES}")
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes, *, canonical: bool = False) -> TimestampFile:
        """Read the bytes of an ``.ots`` file and compute every message on the way.

        Args:
            canonical: Refuse bytes that :meth:`encode` would write differently.

        Raises:
            UnknownVersionError: Another magic or version.
            TooLargeError: A limit is passed.
            TruncatedError, TrailingBytesError
            FormatError: An unknown operation, a URI with other letters, not canonical.
        """
        if len(data) > MAX_FILE_BYTES:
            raise TooLargeError(f"a proof of {len(data)} bytes, at most {MAX_FILE_BYTES}")
        magic = data[: len(MAGIC)]
        if magic != MAGIC[: len(magic)]:
            raise UnknownVersionError("not an OpenTimestamps proof: it begins otherwise")
        reader = _Reader(data, len(magic), canonical)
        if len(magic) < len(MAGIC):
            raise TruncatedError(f"byte {len(data)}: the file ends inside its magic")
        version = reader.varuint(MAX_HEIGHT)
        if version != VERSION:
            raise UnknownVersionError(f"version {version}, this release has {VERSION}")
        hashed_with = reader.operation(reader.byte())
        if hashed_with.tag not in DIGEST_BYTES:
            raise FormatError(f"byte {reader.at}: a file is not hashed with {hashed_with.name}")
        digest = reader.take(DIGEST_BYTES[hashed_with.tag])
        proof = cls(reader.timestamp(digest, 0), hashed_with)
        if reader.at != len(data):
            raise TrailingBytesError(f"byte {reader.at}: {len(data) - reader.at} after the end")
        return proof


class _Reader:
    def __init__(self, data: bytes, at: int, canonical: bool) -> None:
        self.data, self.at, self.canonical, self.keccaks = data, at, canonical, 0

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise TruncatedError(f"byte {self.at}: {count} bytes needed, the file ends before")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def byte(self) -> int:
        if self.at >= len(self.data):
            raise TruncatedError(f"byte {self.at}: the file ends inside the tree")
        self.at += 1
        return self.data[self.at - 1]

    def varuint(self, limit: int) -> int:
        byte = value = self.byte()
        if byte > 0x7F:
            value, shift = byte & 0x7F, 7
            while byte > 0x7F:
                if shift > 70:
                    raise TooLargeError(f"byte {self.at}: a number of more than ten bytes")
                byte = self.byte()
                value |= (byte & 0x7F) << shift
                shift += 7
            if self.canonical and not byte:
                raise FormatError(f"byte {self.at}: a number that is longer than it need be")
        if value > limit:
            raise TooLargeError(f"byte {self.at}: {value}, at most {limit}")
        return value

    def varbytes(self, limit: int) -> bytes:
        return self.take(self.varuint(limit))

    def operation(self, tag: int) -> Operation:
        if tag == SHA256_TAG:
            return SHA256
        if tag in (APPEND_TAG, PREPEND_TAG):
            argument = self.varbytes(MAX_MESSAGE_BYTES)
            if not argument:
                raise FormatError(f"byte {self.at}: {NAMES[tag]} of nothing")
            return Operation(tag, argument)
        if tag not in UNARY:
            raise FormatError(f"byte {self.at - 1}: unknown operation {tag:02x}")
        return Operation(tag)

    def timestamp(self, message: bytes, depth: int) -> Timestamp:
        """One node and all below it: a loop along the last items, recursion at forks alone."""
        passed: list[tuple[bytes, _Forks | None, Operation]] = []
        while True:
            if depth > MAX_OPERATIONS:
                raise TooLargeError(
                    f"byte {self.at}: a walk of more than {MAX_OPERATIONS} operations"
                )
            tag = self.byte()
            forks = None
            if tag == _FORK:
                forks = self.forks(message, depth)
                tag = self.byte()
            if tag == _ATTESTATION:
                attestation = self.attestation()
                if forks is None:
                    made = Timestamp(message, (attestation,))
                else:
                    forks.attest(attestation)
                    made = forks.node(message, self.canonical)
                break
            operation, result = self.applied(tag, message)
            passed.append((message, forks, operation))
            message = result
            depth += 1
        for before, forks, operation in reversed(passed):
            if forks is None:
                made = Timestamp(before, (), ((operation, made),))
            else:
                forks.lead(operation, made)
                made = forks.node(before, self.canonical)
        return made

    def forks(self, message: bytes, depth: int) -> _Forks:
        """The items of a node that are not its last."""
        found = _Forks()
        while True:
            tag = self.byte()
            if tag == _ATTESTATION:
                found.attest(self.attestation())
            else:
                operation, result = self.applied(tag, message)
                found.lead(operation, self.timestamp(result, depth + 1))
            if self.at >= len(self.data) or self.data[self.at] != _FORK:
                return found
            self.at += 1

    def applied(self, tag: int, message: bytes) -> tuple[Operation, bytes]:
        begin = self.at - 1
        operation = self.operation(tag)
        if tag == SHA256_TAG:
            return operation, hashlib.sha256(message).digest()
        self.keccaks += tag == KECCAK256_TAG
        if self.keccaks > MAX_KECCAKS:
            raise TooLargeError(f"byte {begin}: more than {MAX_KECCAKS} times keccak256")
        try:
            return operation, operation.apply(message)
        except FormatError as error:
            raise type(error)(f"byte {begin}: {error}") from None

    def attestation(self) -> Attestation:
        tag, begin = self.take(_TAG_BYTES), self.at
        payload = self.varbytes(MAX_PAYLOAD_BYTES)
        if tag not in (BITCOIN_TAG, PENDING_TAG):
            return Unknown(tag, payload)
        inner = _Reader(payload, 0, self.canonical)
        try:
            made: Attestation
            if tag == BITCOIN_TAG:
                made = Bitcoin(inner.varuint(MAX_HEIGHT))
            else:
                made = Pending(inner.varbytes(MAX_URI_BYTES).decode("ascii", "replace"))
        except (FormatError, InputError) as error:
            raise FormatError(f"byte {begin}: in an attestation: {error}") from None
        if inner.at != len(payload):
            raise TrailingBytesError(f"byte {begin}: an attestation goes on after its end")
        return made


class _Forks:
    """The items of a node with several, as they are read."""

    def __init__(self) -> None:
        self.attestations: list[Attestation] = []
        self.branches: dict[Operation, Timestamp] = {}
        self.order: list[tuple[int, tuple[object, ...]]] = []

    def attest(self, attestation: Attestation) -> None:
        self.order.append((0, rank(attestation)))
        self.attestations.append(attestation)

    def lead(self, operation: Operation, child: Timestamp) -> None:
        self.order.append((1, operation))
        before = self.branches.get(operation)
        self.branches[operation] = child if before is None else before.merge(child)

    def node(self, message: bytes, canonical: bool) -> Timestamp:
        if canonical and self.order != sorted(set(self.order)):
            raise FormatError("a node with items repeated or not in order")
        return Timestamp(message, self.attestations, self.branches.items())
