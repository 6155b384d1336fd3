"""OpenTimestamps files: a file's digest, and the tree from it to what attests to a time.

docs/FORMAT.md, section 10.1. Beyond the limits of the reference (python-opentimestamps 0.4.5) a
file has at most 64 KiB, a height at most 2^63 - 1, and 16 operations are keccak256, which is slow.
Like the reference this reads varuints that are longer than they need be, repeated items and
items in any order; :meth:`TimestampFile.decode` with ``canonical`` refuses them.

What cannot be written raises ``InputError``, bytes that do not decode a ``FormatError`` that says
where.
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
from provenance.formats.opentimestamps import tree

MAGIC: Final = b"\x00OpenTimestamps\x00\x00Proof\x00\xbf\x89\xe2\xe8\x84\xe8\x92\x94"
VERSION: Final = 1
MAX_FILE_BYTES: Final = 64 * 1024
MAX_PAYLOAD_BYTES: Final = 8192
MAX_KECCAKS: Final = 16
"""In one file: a millisecond for each 270 bytes."""
_TAG_BYTES: Final = 8
_ATTESTATION: Final = 0x00


@dataclass(frozen=True, slots=True)
class TimestampFile:
    """A detached timestamp file: ``timestamp.message`` is a file's digest by ``hashed_with``."""

    timestamp: tree.Timestamp
    hashed_with: tree.Operation = tree.SHA256

    def encode(self) -> bytes:
        """The bytes of an ``.ots`` file; ``InputError`` or ``TooLargeError`` where it has none."""
        if len(self.timestamp.message) != tree.DIGEST_BYTES.get(self.hashed_with.tag):
            raise InputError(f"{self.hashed_with.name}: not its digest to begin with")
        head = MAGIC + tree.varuint(VERSION) + bytes([self.hashed_with.tag])
        data = head + self.timestamp.message + self.timestamp.encode()
        if len(data) > MAX_FILE_BYTES:
            raise TooLargeError(f"a proof of {len(data)} bytes, at most {MAX_FILE_BYTES}")
        return data

    @classmethod
    def decode(cls, data: bytes, *, canonical: bool = False) -> TimestampFile:
        """Read the bytes of an ``.ots`` file, or ``FormatError``, and compute every message on the
        way; ``canonical`` refuses bytes that :meth:`encode` would write differently."""
        if len(data) > MAX_FILE_BYTES:
            raise TooLargeError(f"a proof of {len(data)} bytes, at most {MAX_FILE_BYTES}")
        magic = data[: len(MAGIC)]
        if magic != MAGIC[: len(magic)]:
            raise UnknownVersionError("not an OpenTimestamps proof: it begins otherwise")
        reader = _Reader(data, len(magic), canonical)
        if len(magic) < len(MAGIC):
            raise TruncatedError(f"byte {len(data)}: the file ends inside its magic")
        version = reader.varuint(tree.MAX_HEIGHT)
        if version != VERSION:
            raise UnknownVersionError(f"version {version}, this release has {VERSION}")
        hashed_with = reader.operation(reader.byte())
        if hashed_with.tag not in tree.DIGEST_BYTES:
            raise FormatError(f"byte {reader.at}: a file is not hashed with {hashed_with.name}")
        digest = reader.take(tree.DIGEST_BYTES[hashed_with.tag])
        proof = cls(reader.timestamp(digest, 0), hashed_with)
        if reader.at != len(data):
            raise TrailingBytesError(f"byte {reader.at}: {len(data) - reader.at} after the end")
        return proof


class _Reader:
    def __init__(self, data: bytes, at: int, canonical: bool) -> None:
        self.data, self.at, self.canonical, self.keccaks = data, at, canonical, 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise TruncatedError(f"byte {self.at}: {count} bytes needed, the file ends before")
        self.at += count
        return self.data[self.at - count : self.at]

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

    def operation(self, tag: int) -> tree.Operation:
        if tag == tree.SHA256_TAG:
            return tree.SHA256
        if tag in (tree.APPEND_TAG, tree.PREPEND_TAG):
            argument = self.varbytes(tree.MAX_MESSAGE_BYTES)
            if not argument:
                raise FormatError(f"byte {self.at}: {tree.NAMES[tag]} of nothing")
            return tree.Operation(tag, argument)
        if tag not in tree.NAMES:
            raise FormatError(f"byte {self.at - 1}: unknown operation {tag:02x}")
        return tree.Operation(tag)

    def timestamp(self, message: bytes, depth: int) -> tree.Timestamp:
        """One node and all below it."""
        if depth > tree.MAX_OPERATIONS:
            walk = f"a walk of more than {tree.MAX_OPERATIONS} operations"
            raise TooLargeError(f"byte {self.at}: {walk}")
        tag = self.byte()
        if tag not in (tree.FORK, _ATTESTATION):  # most nodes have one item alone
            operation, result = self.applied(tag, message)
            return tree.Timestamp(message, (), ((operation, self.timestamp(result, depth + 1)),))
        attestations: list[tree.Attestation] = []
        branches: dict[tree.Operation, tree.Timestamp] = {}
        found: list[object] = []
        last = False
        while not last:
            last = tag != tree.FORK
            item = tag if last else self.byte()
            if item == _ATTESTATION:
                attestations.append(self.attestation())
                found.append(attestations[-1])
            else:
                operation, result = self.applied(item, message)
                child = self.timestamp(result, depth + 1)
                if operation in branches:
                    child = branches[operation].merge(child)
                branches[operation] = child
                found.append(operation)
            tag = tag if last else self.byte()
        in_order = [*sorted(set(attestations), key=tree.rank), *sorted(branches)]
        if self.canonical and found != in_order:
            raise FormatError("a node with items repeated or not in order")
        return tree.Timestamp(message, attestations, branches.items())

    def applied(self, tag: int, message: bytes) -> tuple[tree.Operation, bytes]:
        begin = self.at - 1
        operation = self.operation(tag)
        if tag == tree.SHA256_TAG:
            return operation, hashlib.sha256(message).digest()
        self.keccaks += tag == tree.KECCAK256_TAG
        if self.keccaks > MAX_KECCAKS:
            raise TooLargeError(f"byte {begin}: more than {MAX_KECCAKS} times keccak256")
        try:
            return operation, operation.apply(message)
        except FormatError as error:
            raise type(error)(f"byte {begin}: {error}") from None

    def attestation(self) -> tree.Attestation:
        tag, begin = self.take(_TAG_BYTES), self.at
        payload = self.varbytes(MAX_PAYLOAD_BYTES)
        if tag not in (tree.Bitcoin.tag, tree.Pending.tag):
            return tree.Unknown(tag, payload)
        inner = _Reader(payload, 0, self.canonical)
        made: tree.Attestation
        try:
            if tag == tree.Bitcoin.tag:
                made = tree.Bitcoin(inner.varuint(tree.MAX_HEIGHT))
            else:
                made = tree.Pending(inner.varbytes(tree.MAX_URI_BYTES).decode("ascii", "replace"))
        except (FormatError, InputError) as error:
            raise FormatError(f"byte {begin}: in an attestation: {error}") from None
        if inner.at != len(payload):
            raise TrailingBytesError(f"byte {begin}: an attestation goes on after its end")
        return made
