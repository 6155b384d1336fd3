"""What an OpenTimestamps proof is made of: operations on a message, and attestations of one.

WARNING: FROZEN FORMAT, drawn in :mod:`provenance.formats.opentimestamps.file`. No I/O, no
clock, no randomness.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from provenance.errors import FormatError, InputError, TooLargeError
from provenance.formats.keccak import keccak256
from provenance.formats.merkle import Step

MAX_MESSAGE_BYTES: Final = 4096
MAX_URI_BYTES: Final = 1000
MAX_HEIGHT: Final = 2**63 - 1

BITCOIN_TAG: Final = bytes.fromhex("0588960d73d71901")
PENDING_TAG: Final = bytes.fromhex("83dfe30d2ef90c8e")
_OTHER_HEIGHT_TAGS: Final = (
    bytes.fromhex("06869a0d73d71b45"),  # Litecoin
    bytes.fromhex("30fe8087b5c7ead7"),  # Ethereum
)
_URI_BYTES: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._/:"
)

SHA1_TAG, RIPEMD160_TAG, SHA256_TAG, KECCAK256_TAG = 0x02, 0x03, 0x08, 0x67
APPEND_TAG, PREPEND_TAG, REVERSE_TAG, HEXLIFY_TAG = 0xF0, 0xF1, 0xF2, 0xF3


class Operation(NamedTuple):
    """One operation on a message; ``argument`` is empty but for append and prepend."""

    tag: int
    argument: bytes = b""

    @property
    def name(self) -> str:
        """As the stock client prints it."""
        return NAMES[self.tag]

    def apply(self, message: bytes) -> bytes:
        """The operation's result, which is never empty.

        Raises:
            TooLargeError: More than 4,096 bytes go in or come out.
            FormatError: An empty message is reversed or hexlified, or this machine's OpenSSL
                has no ripemd160.
        """
        if self.tag == APPEND_TAG:
            result = message + self.argument
        elif self.tag == PREPEND_TAG:
            result = self.argument + message
        else:
            result = UNARY[self.tag](message)
        if len(message) > MAX_MESSAGE_BYTES or len(result) > MAX_MESSAGE_BYTES:
            raise TooLargeError(f"{self.name}: more than {MAX_MESSAGE_BYTES} bytes")
        if not result:
            raise FormatError(f"{self.name}: of an empty message")
        return result


def _sha256(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()


def _ripemd160(message: bytes) -> bytes:
    try:
        return hashlib.new("ripemd160", message).digest()
    except ValueError:
        raise FormatError("ripemd160: this machine's OpenSSL does not have it") from None


UNARY: Final[Mapping[int, Callable[[bytes], bytes]]] = MappingProxyType(
    {
        SHA256_TAG: _sha256,
        # The format has it; a proof of ours never does.
        SHA1_TAG: lambda message: hashlib.sha1(message).digest(),  # noqa: S324  the format's, not ours to choose
        RIPEMD160_TAG: _ripemd160,
        KECCAK256_TAG: keccak256,
        REVERSE_TAG: lambda message: message[::-1],
        HEXLIFY_TAG: lambda message: message.hex().encode(),
    }
)
DIGEST_BYTES: Final = MappingProxyType(
    {SHA256_TAG: 32, SHA1_TAG: 20, RIPEMD160_TAG: 20, KECCAK256_TAG: 32}
)
"""The operations that a file can be hashed with."""
NAMES: Final = MappingProxyType(
    {
        APPEND_TAG: "append",
        PREPEND_TAG: "prepend",
        SHA256_TAG: "sha256",
        SHA1_TAG: "sha1",
        RIPEMD160_TAG: "ripemd160",
        KECCAK256_TAG: "keccak256",
        REVERSE_TAG: "reverse",
        HEXLIFY_TAG: "hexlify",
    }
)
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


# --- attestations ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bitcoin:
    """The message is the Merkle root (internal byte order) of the block at ``height``."""

    height: int

    def __post_init__(self) -> None:
        if not 0 <= self.height <= MAX_HEIGHT:
            raise InputError(f"a block height of {self.height}")

    @property
    def tag(self) -> bytes:
        """8 bytes."""
        return BITCOIN_TAG

    @property
    def payload(self) -> bytes:
        """The height."""
        return varuint(self.height)


@dataclass(frozen=True, slots=True)
class Pending:
    """Whoever is at ``uri`` (letters, digits and ``-._/:``) can complete the proof."""

    uri: str

    def __post_init__(self) -> None:
        encoded = self.uri.encode()
        if len(encoded) > MAX_URI_BYTES or not _URI_BYTES.issuperset(encoded):
            raise InputError(f"not a URI that a pending attestation takes: {self.uri[:80]!r}")

    @property
    def tag(self) -> bytes:
        """8 bytes."""
        return PENDING_TAG

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
