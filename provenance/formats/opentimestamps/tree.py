"""OpenTimestamps proofs in memory: operations on a message, attestations, and the tree of both.

docs/FORMAT.md, section 10.1. Source: python-opentimestamps 0.4.5,
``opentimestamps/core/{op,notary,timestamp,serialize}.py``; its limits hold here too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

from provenance.errors import FormatError, InputError, TooLargeError
from provenance.formats.keccak import keccak256
from provenance.formats.merkle import Step

MAX_MESSAGE_BYTES: Final = 4096
MAX_URI_BYTES: Final = 1000
MAX_HEIGHT: Final = 2**63 - 1
MAX_OPERATIONS: Final = 255
"""On one walk from the digest to an attestation."""
SHA256_TAG, KECCAK256_TAG, APPEND_TAG, PREPEND_TAG = 0x08, 0x67, 0xF0, 0xF1
FORK: Final = 0xFF
_OTHER_HEIGHT_TAGS: Final = (
    bytes.fromhex("06869a0d73d71b45"),  # Litecoin
    bytes.fromhex("30fe8087b5c7ead7"),  # Ethereum
)
_URI_BYTES: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._/:"
)


def _ripemd160(message: bytes) -> bytes:
    try:
        return hashlib.new("ripemd160", message).digest()
    except ValueError:
        raise FormatError("ripemd160: this machine's OpenSSL does not have it") from None


NAMES: Final = {
    0x02: "sha1", 0x03: "ripemd160", SHA256_TAG: "sha256", KECCAK256_TAG: "keccak256",
    APPEND_TAG: "append", PREPEND_TAG: "prepend", 0xF2: "reverse", 0xF3: "hexlify",
}  # fmt: skip
_UNARY: Final[dict[int, Callable[[bytes], bytes]]] = {
    0x02: lambda message: hashlib.sha1(message).digest(),  # noqa: S324  the format has it
    0x03: _ripemd160,
    SHA256_TAG: lambda message: hashlib.sha256(message).digest(),
    KECCAK256_TAG: keccak256,
    0xF2: lambda message: message[::-1],
    0xF3: lambda message: message.hex().encode(),
}
DIGEST_BYTES: Final = {0x02: 20, 0x03: 20, SHA256_TAG: 32, KECCAK256_TAG: 32}
"""The operations that a file can be hashed with."""


class Operation(NamedTuple):
    """One operation on a message; ``argument`` is empty but for append and prepend."""

    tag: int
    argument: bytes = b""

    @property
    def name(self) -> str:
        """As the stock client prints it."""
        return NAMES[self.tag]

    def apply(self, message: bytes) -> bytes:
        """The operation's result, which is never empty; ``FormatError`` over 4,096 bytes, for an
        empty message, or where this machine's OpenSSL has no ripemd160."""
        if self.tag == APPEND_TAG:
            result = message + self.argument
        elif self.tag == PREPEND_TAG:
            result = self.argument + message
        else:
            result = _UNARY[self.tag](message)
        if len(message) > MAX_MESSAGE_BYTES or len(result) > MAX_MESSAGE_BYTES:
            raise TooLargeError(f"{self.name}: more than {MAX_MESSAGE_BYTES} bytes")
        if not result:
            raise FormatError(f"{self.name}: of an empty message")
        return result


SHA256: Final = Operation(SHA256_TAG)


def append(suffix: bytes) -> Operation:
    """The message, then ``suffix``; ``InputError`` where that has not 1 to 4,096 bytes."""
    return _with_argument(APPEND_TAG, suffix)


def prepend(prefix: bytes) -> Operation:
    """``prefix``, then the message; ``InputError`` where that has not 1 to 4,096 bytes."""
    return _with_argument(PREPEND_TAG, prefix)


def _with_argument(tag: int, argument: bytes) -> Operation:
    if not 0 < len(argument) <= MAX_MESSAGE_BYTES:
        raise InputError(f"{NAMES[tag]}: an argument of {len(argument)} bytes")
    return Operation(tag, argument)


def operations(steps: Iterable[Step]) -> list[Operation]:
    """The walk of Merkle proofs (:class:`merkle.Step`) as bare operations."""
    made: list[Operation] = []
    for step in steps:
        made.append(prepend(step.prefix))
        if step.suffix:
            made.append(append(step.suffix))
        made.append(SHA256)
    return made


@dataclass(frozen=True, slots=True)
class Bitcoin:
    """The message is the Merkle root (internal byte order) of the block at ``height``."""

    height: int
    tag: ClassVar = bytes.fromhex("0588960d73d71901")

    def __post_init__(self) -> None:
        if not 0 <= self.height <= MAX_HEIGHT:
            raise InputError(f"a block height of {self.height}")

    @property
    def payload(self) -> bytes:
        """The height."""
        return varuint(self.height)


@dataclass(frozen=True, slots=True)
class Pending:
    """Whoever is at ``uri`` (letters, digits and ``-._/:``) can complete the proof."""

    uri: str
    tag: ClassVar = bytes.fromhex("83dfe30d2ef90c8e")

    def __post_init__(self) -> None:
        encoded = self.uri.encode()
        if len(encoded) > MAX_URI_BYTES or not _URI_BYTES.issuperset(encoded):
            raise InputError(f"not a URI that a pending attestation takes: {self.uri[:80]!r}")

    @property
    def payload(self) -> bytes:
        """The URI with its length."""
        return varbytes(self.uri.encode())


@dataclass(frozen=True, slots=True)
class Unknown:
    """An attestation of another kind, kept as it is."""

    tag: bytes
    payload: bytes


Attestation = Bitcoin | Pending | Unknown


def rank(attestation: Attestation) -> tuple[bytes, int, bytes]:
    """The reference's order: by tag, then by height as a number, or by bytes."""
    if isinstance(attestation, Bitcoin):
        return (attestation.tag, attestation.height, b"")
    if isinstance(attestation, Pending):
        return (attestation.tag, 0, attestation.uri.encode())
    payload = attestation.payload
    if attestation.tag in _OTHER_HEIGHT_TAGS:
        return (attestation.tag, len(payload), payload[::-1])
    return (attestation.tag, 0, payload)


def varuint(value: int) -> bytes:
    """Base 128, little-endian."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varbytes(data: bytes) -> bytes:
    """Length, then bytes."""
    return varuint(len(data)) + data


class Timestamp:
    """All that is known of one message (at most 4,096 bytes): what attests to it, and by operation
    what is known of its result. A value: it does not change, and equals another with the same
    bytes."""

    __slots__ = ("attestations", "branches", "message")

    def __init__(
        self,
        message: bytes,
        attestations: Iterable[Attestation] = (),
        branches: Iterable[tuple[Operation, Timestamp]] = (),
    ) -> None:
        self.message: Final = message
        ours, onward = tuple(attestations), tuple(branches)
        if len(ours) > 1:
            ours = tuple(sorted(set(ours), key=rank))
        if len(onward) > 1:
            onward = tuple(sorted(onward, key=lambda branch: branch[0]))
        self.attestations: Final = ours
        self.branches: Final = onward

    @classmethod
    def of_walk(
        cls, message: bytes, walk: Iterable[Operation], end: Attestation | Timestamp
    ) -> Timestamp:
        """One walk from ``message``, with what attests to the last one, or all that is known of it;
        ``InputError`` where ``end`` is of another message."""
        passed: list[tuple[bytes, Operation]] = []
        for operation in walk:
            passed.append((message, operation))
            message = operation.apply(message)
        if not isinstance(end, Timestamp):
            end = cls(message, (end,))
        if end.message != message:
            raise InputError(f"the walk leads to {message.hex()}, not to {end.message.hex()}")
        for before, operation in reversed(passed):
            end = cls(before, (), ((operation, end),))
        return end

    def walk(self) -> Iterator[tuple[bytes, Attestation]]:
        """Every attestation of the tree with the message it is of."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            for attestation in node.attestations:
                yield node.message, attestation
            waiting.extend(child for _, child in reversed(node.branches))

    def merge(self, other: Timestamp) -> Timestamp:
        """What either knows of the message; ``InputError`` where they are of different ones."""
        if self.message != other.message:
            both = f"{self.message.hex()} and of {other.message.hex()}"
            raise InputError(f"timestamps of {both} do not merge")
        branches = dict(self.branches)
        for operation, theirs in other.branches:
            mine = branches.get(operation)
            branches[operation] = theirs if mine is None else mine.merge(theirs)
        attestations = (*self.attestations, *other.attestations)
        return Timestamp(self.message, attestations, branches.items())

    def extend(self, continuation: Timestamp, instead_of: Attestation | None = None) -> Timestamp:
        """This tree with more known of one of its messages, wherever it stands; ``instead_of`` an
        attestation of that message which the continuation makes good."""
        branches = [(o, child.extend(continuation, instead_of)) for o, child in self.branches]
        if self.message != continuation.message:
            return Timestamp(self.message, self.attestations, branches)
        kept = (each for each in self.attestations if each != instead_of)
        return Timestamp(self.message, kept, branches).merge(continuation)

    def encode(self) -> bytes:
        """The bytes of the tree without the message; ``InputError`` for a node of which nothing is
        known, ``TooLargeError`` for a walk of more than 255 operations."""
        return self._encoded(0)

    def _encoded(self, depth: int) -> bytes:
        if depth > MAX_OPERATIONS:
            raise TooLargeError(f"a walk of more than {MAX_OPERATIONS} operations")
        items = [b"\x00" + each.tag + varbytes(each.payload) for each in self.attestations]
        for (tag, argument), child in self.branches:
            operation = bytes([tag]) + (varbytes(argument) if argument else b"")
            items.append(operation + child._encoded(depth + 1))
        if not items:
            raise InputError(f"nothing is known of message {self.message.hex()}")
        return bytes([FORK]).join([b"", *items[:-1]]) + items[-1]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Timestamp):
            return NotImplemented
        return (self.message, self.encode()) == (other.message, other.encode())

    def __hash__(self) -> int:
        return hash((self.message, self.encode()))

    def __repr__(self) -> str:
        kinds = ", ".join(type(attestation).__name__ for _, attestation in self.walk())
        return f"Timestamp({self.message.hex()}: {kinds})"
