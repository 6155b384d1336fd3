"""Signed notes: a text, and Ed25519 signatures of it by named keys (C2SP signed-note).

docs/FORMAT.md, section 7. ::

    first line of the text
    ...
                                                   empty line
    — example.org/ledger Az3grlgtzPICa5OS...       em dash, key name, base64(key id || signature)

Everything up to and including the newline before the empty line is the *text*: the bytes that
are signed. Sources: https://c2sp.org/signed-note, and the Go package golang.org/x/mod/sumdb/note,
whose limits (1,000,000 bytes, 100 signatures) hold here too.

A value that cannot be written raises ``InputError``, text that does not decode a ``FormatError``
naming its line, a signature that is missing or does not verify ``BadSignatureError``.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from typing import ClassVar, Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.errors import (
    BadSignatureError,
    FormatError,
    InputError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
)
from provenance.formats.ed25519 import verify_signature

MAX_NOTE_BYTES: Final = 1_000_000
MAX_SIGNATURES: Final = 100
_KEY_SIZE: Final = 32
_KEY_ID_SIZE: Final = 4
SIGNATURE_MARK: Final = "— "
UNPRINTABLE: Final = re.compile("[\x00-\x1f\ud800-\udfff]")  # control, not UTF-8


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line of a note, from 1; not verified. 64 bytes are an Ed25519 signature."""

    name: str
    key_id: bytes
    signature: bytes
    line: int


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A named Ed25519 public key (32 bytes) of one signature type; `VerifierKey` and `WitnessKey`
    are. The name has no spaces and no ``+``; by convention it is the origin."""

    name: str
    public_bytes: bytes

    TYPE: ClassVar[bytes]
    """The signature type (C2SP signed-note), one byte."""
    TITLE: ClassVar[str]

    def __post_init__(self) -> None:
        if not _is_key_name(self.name):
            raise InputError(f"a key name must be text without spaces and '+', got {self.name!r}")
        if len(self.public_bytes) != _KEY_SIZE:
            raise InputError(
                f"an Ed25519 public key has {_KEY_SIZE} bytes, got {len(self.public_bytes)}"
            )

    @property
    def key_id(self) -> bytes:
        """``SHA-256(name || 0A || type || public key)[:4]`` (C2SP signed-note)."""
        body = self.name.encode() + b"\n" + self.TYPE + self.public_bytes
        return hashlib.sha256(body).digest()[:_KEY_ID_SIZE]

    @property
    def label(self) -> str:
        """Name and key id, as messages show a key."""
        return f"{self.name}+{self.key_id.hex()}"

    @property
    def vkey(self) -> str:
        """The key as text: ``name+hex(key id)+base64(type || public key)``."""
        return f"{self.label}+{encode_base64(self.TYPE + self.public_bytes)}"

    @classmethod
    def from_vkey(cls, vkey: str) -> Self:
        """Parse `vkey`; ``FormatError`` where it is none, or its type or id are another key's."""
        parts = vkey.split("+", 2)
        if len(parts) != 3 or not _is_key_name(parts[0]):
            raise FormatError(f"{cls.TITLE} {vkey[:60]!r}: expected name+keyid+base64")
        name, key_id, encoded = parts
        what = f"{cls.TITLE} {name[:60]!r}"
        material = decode_base64(encoded, f"{what}: key")
        if material[:1] != cls.TYPE:
            kind = material[:1].hex() or "none"
            raise FormatError(f"{what}: key type {kind}, expected {cls.TYPE.hex()}")
        if len(material) != 1 + _KEY_SIZE:
            error = TruncatedError if len(material) < 1 + _KEY_SIZE else TrailingBytesError
            raise error(f"{what}: expected {1 + _KEY_SIZE} bytes, got {len(material)}")
        key = cls(name, material[1:])
        if key.key_id.hex() != key_id:
            own = key.key_id.hex()
            raise FormatError(f"{what}: key id is {key_id[:40]!r}, but this key has {own}")
        return key

    def verify(self, message: bytes, signature: bytes) -> None:
        """Check an Ed25519 signature of 64 bytes; ``BadSignatureError`` where it fails."""
        verify_signature(self.public_bytes, signature, message, f"signature by {self.label}")


class VerifierKey(NamedKey):
    """The named public key of who signs notes: key type 01."""

    __slots__ = ()
    TYPE = b"\x01"
    TITLE = "verifier key"


@dataclass(frozen=True, slots=True)
class SignerKey:
    """A named Ed25519 private key; neither ``repr`` nor an error shows it."""

    verifier: VerifierKey
    _private: Ed25519PrivateKey = field(repr=False, compare=False)

    @classmethod
    def from_private_bytes(cls, name: str, private: bytes) -> SignerKey:
        """The key of a 32-byte seed (RFC 8032 private key)."""
        if len(private) != _KEY_SIZE:
            raise InputError(f"an Ed25519 private key has {_KEY_SIZE} bytes, got {len(private)}")
        key = Ed25519PrivateKey.from_private_bytes(private)
        return cls(VerifierKey(name, key.public_key().public_bytes_raw()), key)

    @property
    def name(self) -> str:
        """The key's name."""
        return self.verifier.name

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes; the same message gives the same bytes."""
        return self._private.sign(message)


def split_note(note: str) -> tuple[str, tuple[NoteSignature, ...]]:
    """Any signed note, checkpoint or not: its text and signature lines, not verified."""
    if len(note) > MAX_NOTE_BYTES:
        raise TooLargeError(f"note has more than {MAX_NOTE_BYTES} bytes")
    for at, line in enumerate(note.split("\n"), 1):
        if UNPRINTABLE.search(line):
            raise FormatError(f"note line {at}: a control character or invalid text")
    if len(note.encode()) > MAX_NOTE_BYTES:
        raise TooLargeError(f"note has more than {MAX_NOTE_BYTES} bytes")
    if not note.endswith("\n"):
        raise TruncatedError("note does not end with a newline")
    end = note.rfind("\n\n")
    if end < 0:
        raise TruncatedError("note has no empty line before its signatures")
    text, block = note[: end + 1], note[end + 2 :]
    lines = block.split("\n")[:-1]
    if not lines:
        raise TruncatedError("note has no signature after its empty line")
    if len(lines) > MAX_SIGNATURES:
        raise TooLargeError(f"note has {len(lines)} signatures, more than {MAX_SIGNATURES}")
    first = text.count("\n") + 2
    return text, tuple(_read_signature(line, at) for at, line in enumerate(lines, first))


def verify_note(text: str, signatures: tuple[NoteSignature, ...], verifier: VerifierKey) -> None:
    """Check that ``verifier`` signed the text of a note; none of its signatures may fail."""
    mine = [s for s in signatures if (s.name, s.key_id) == (verifier.name, verifier.key_id)]
    if not mine:
        found = ", ".join(f"{s.name}+{s.key_id.hex()}" for s in signatures[:4])
        more = ", ..." if len(signatures) > 4 else ""
        by = f"{verifier.label}; it is signed by {found}{more}"
        raise BadSignatureError(f"note has no signature by {by}")
    for signature in mine:
        try:
            verifier.verify(text.encode(), signature.signature)
        except BadSignatureError as error:
            raise BadSignatureError(f"note line {signature.line}: {error}") from None


def _read_signature(line: str, at: int) -> NoteSignature:
    name, separator, encoded = line.removeprefix(SIGNATURE_MARK).partition(" ")
    if not line.startswith(SIGNATURE_MARK) or not separator or not _is_key_name(name):
        raise FormatError(f"note line {at}: expected '— key-name base64', got {line[:40]!r}")
    blob = decode_base64(encoded, f"note line {at}: signature")
    if len(blob) <= _KEY_ID_SIZE:
        raise TruncatedError(f"note line {at}: signature has {len(blob)} bytes, needs a key id")
    return NoteSignature(name, blob[:_KEY_ID_SIZE], blob[_KEY_ID_SIZE:], at)


def _is_key_name(name: str) -> bool:
    spaced = any(map(str.isspace, name))
    return bool(name) and not spaced and "+" not in name and not UNPRINTABLE.search(name)


def encode_base64(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str, what: str) -> bytes:
    """Base64 as bytes; ``FormatError`` for another spelling than `encode_base64` gives."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error, or characters beyond ASCII
        data = None
    if data is None or encode_base64(data) != text:
        raise FormatError(f"{what} is not base64: {text[:44]!r}")
    return data
