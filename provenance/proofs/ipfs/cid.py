"""IPFS content identifiers of raw blocks, computed and compared without a daemon.

A CID (github.com/multiformats/cid) is ``version codec multihash``, each a number as an
unsigned LEB128 varint, the multihash being ``function length digest``. As text it has one
multibase letter in front: ``b`` (RFC 4648 base32, lower case, no padding), ``z`` (base58btc)
or ``f`` (hex); version 0 is the bare base58btc multihash that starts with ``Qm``. Daemons
print the same CID in different bases, so compare decoded values, never strings.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from provenance.errors import FormatError, TooLargeError, TrailingBytesError, TruncatedError
from provenance.formats.opentimestamps.tree import varuint

RAW = 0x55
DAG_PB = 0x70
SHA2_256 = 0x12
MAX_CID_CHARS = 256
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_DIGIT = {letter: value for value, letter in enumerate(_BASE58)}
_MAX_VARINT_BYTES = 9


@dataclass(frozen=True, slots=True)
class Cid:
    """A decoded CID: multicodec ``codec``, multihash ``function`` and its ``digest``."""

    version: int
    codec: int
    function: int
    digest: bytes

    def __str__(self) -> str:
        """Version 1 as ``b`` + base32, version 0 as ``Qm...``."""
        multihash = varuint(self.function) + varuint(len(self.digest)) + self.digest
        if self.version == 0:
            return _to_base58(multihash)
        data = varuint(self.version) + varuint(self.codec) + multihash
        return "b" + base64.b32encode(data).decode().lower().rstrip("=")

    @property
    def is_raw_sha256(self) -> bool:
        """True where the digest is the SHA-256 of the block's own bytes."""
        return self.version == 1 and self.codec == RAW and self.function == SHA2_256


def raw_cid(data: bytes) -> Cid:
    """The CIDv1 of a raw block: what ``add?cid-version=1&raw-leaves=true`` gives."""
    return Cid(1, RAW, SHA2_256, hashlib.sha256(data).digest())


def decode_cid(text: str) -> Cid:
    """Read a CID in base32, base58btc or hex, or a version 0 one; or ``FormatError``."""
    if len(text) > MAX_CID_CHARS:
        raise TooLargeError(f"CID of {len(text)} characters, at most {MAX_CID_CHARS}")
    if text.startswith("Qm"):
        function, digest = _multihash(_from_base58(text))
        if function != SHA2_256 or len(digest) != 32:
            raise FormatError("CID of version 0 that is not a SHA-256 multihash")
        return Cid(0, DAG_PB, function, digest)
    data = _from_multibase(text)
    version, rest = _read_varint(data)
    if version != 1:
        raise FormatError(f"CID version {version}, expected 1")
    codec, rest = _read_varint(rest)
    function, digest = _multihash(rest)
    return Cid(1, codec, function, digest)


def _from_multibase(text: str) -> bytes:
    base, body = text[:1], text[1:]
    try:
        if base == "b" and body == body.lower():
            data = base64.b32decode(body.upper() + "=" * (-len(body) % 8))
            canonical = base64.b32encode(data).decode().lower().rstrip("=")
            if canonical != body:
                raise FormatError("CID: base32 with stray bits")
            return data
        if base == "f" and body == body.lower() and " " not in body:
            return bytes.fromhex(body)
    except ValueError as error:
        raise FormatError(f"CID does not decode as multibase {base!r}") from error
    if base == "z":
        return _from_base58(body)
    raise FormatError(f"CID in multibase {base!r}, expected b, z or f")


def _multihash(data: bytes) -> tuple[int, bytes]:
    function, rest = _read_varint(data)
    length, digest = _read_varint(rest)
    if len(digest) < length:
        raise TruncatedError(f"CID: digest of {len(digest)} bytes, expected {length}")
    if len(digest) > length:
        raise TrailingBytesError(f"CID: {len(digest) - length} bytes after the digest")
    return function, digest


def _read_varint(data: bytes) -> tuple[int, bytes]:
    value = 0
    for index, byte in enumerate(data[:_MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            if byte == 0 and index:
                raise FormatError("CID: a varint that is not in its shortest form")
            return value, data[index + 1 :]
    if len(data) < _MAX_VARINT_BYTES:
        raise TruncatedError("CID: it ends inside a varint")
    raise TooLargeError("CID: a varint of more than 9 bytes")


def _from_base58(text: str) -> bytes:
    value = 0
    for letter in text:
        if letter not in _BASE58_DIGIT:
            raise FormatError(f"CID: {letter!r} is not a base58 letter")
        value = value * 58 + _BASE58_DIGIT[letter]
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + value.to_bytes((value.bit_length() + 7) // 8, "big")


def _to_base58(data: bytes) -> str:
    value, letters = int.from_bytes(data, "big"), ""
    while value:
        value, digit = divmod(value, 58)
        letters = _BASE58[digit] + letters
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + letters
