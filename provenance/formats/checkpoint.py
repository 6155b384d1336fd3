"""Signed heads: the ledger at a size, as a C2SP tlog-checkpoint in a signed note.

WARNING: FROZEN FORMAT. Every head that was ever published is read by this file. A change
here makes old heads unverifiable. Add a format beside it; never change this one. No I/O,
no clock, no randomness (Ed25519 signatures are deterministic, RFC 8032).

::

    example.org/ledger                             origin: which ledger
    42                                             size: entries, decimal
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=   root: RFC 6962, base64
                                                   empty line
    — example.org/ledger Az3grlgtzPICa5OS...       em dash, key name, base64(key id || signature)

Everything up to and including the newline before the empty line is the *text*: the bytes
that are signed. A key id is ``SHA-256(name || 0A || 01 || public key)[:4]``; a verifier
key is written ``name+hex(key id)+base64(01 || public key)``.

Sources: https://c2sp.org/tlog-checkpoint, https://c2sp.org/signed-note, and the Go package
golang.org/x/mod/sumdb/note, whose limits (1,000,000 bytes, 100 signatures) hold here too.

Errors: a value that cannot be written (`Head`, `SignerKey`) raises ``InputError``; text
that does not decode raises a ``FormatError`` naming its line; a signature that is missing
or does not verify raises ``BadSignatureError``. Nothing a note says counts before
`open_head` has returned.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from provenance.formats import base64_text
from provenance.formats.merkle import HASH_SIZE, MAX_SIZE
from provenance.errors import (
    BadSignatureError,
    FormatError,
    InputError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
)

MAX_NOTE_BYTES: Final = 1_000_000
MAX_SIGNATURES: Final = 100

_ED25519: Final = b"\x01"
_KEY_SIZE: Final = 32
_KEY_ID_SIZE: Final = 4
_SIGNATURE_MARK: Final = "— "
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\ud800-\udfff]")  # control, not UTF-8
_SIZE_PATTERN: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Head:
    """The ledger at a size.

    Args:
        origin: Name of the ledger: one line, not empty; by convention a URL without scheme.
        size: Entries in the ledger, 0 to 2^63 - 1.
        root: RFC 6962 root over them, 32 bytes.

    Raises:
        InputError: one of them cannot be written as a checkpoint.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or _UNPRINTABLE.search(self.origin):
            raise InputError(f"origin of a head must be one line of text, got {self.origin!r}")
        if not 0 <= self.size <= MAX_SIZE:
            raise InputError(f"size of a head must be 0 to {MAX_SIZE}, got {self.size}")
        if len(self.root) != HASH_SIZE:
            raise InputError(f"root of a head must be {HASH_SIZE} bytes, got {len(self.root)}")

    def text(self) -> str:
        """The three lines that are signed, each with its newline."""
        return f"{self.origin}\n{self.size}\n{base64_text.encode(self.root)}\n"


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line of a note: not verified, only read.

    Args:
        name: Key name.
        key_id: 4 bytes.
        signature: The rest, of any type; 64 bytes for Ed25519.
        line: Line of the note it stands on, from 1.
    """

    name: str
    key_id: bytes
    signature: bytes
    line: int


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A note as it was read; its signatures are NOT verified (`open_head` does that).

    Args:
        head: What the text says.
        signatures: In the order of the note; at least one.
        text: The signed text, with its final newline.
        extensions: Lines of the text after the root; this project writes none.
    """

    head: Head
    signatures: tuple[NoteSignature, ...]
    text: str
    extensions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A named Ed25519 public key.

    Args:
        name: Key name: not empty, without spaces and ``+``; by convention the origin.
        public_bytes: 32 bytes (RFC 8032).

    Raises:
        InputError: the name or the key cannot be used.
    """

    name: str
    public_bytes: bytes

    def __post_init__(self) -> None:
        if not _is_key_name(self.name):
            raise InputError(f"a key name must be text without spaces and '+', got {self.name!r}")
        if len(self.public_bytes) != _KEY_SIZE:
            raise InputError(
                f"an Ed25519 public key has {_KEY_SIZE} bytes, got {len(self.public_bytes)}"
            )

    @property
    def key_id(self) -> bytes:
        """``SHA-256(name || 0A || 01 || public key)[:4]`` (C2SP signed-note)."""
        body = self.name.encode() + b"\n" + _ED25519 + self.public_bytes
        return hashlib.sha256(body).digest()[:_KEY_ID_SIZE]

    @property
    def vkey(self) -> str:
        """The key as text: ``name+hex(key id)+base64(01 || public key)``."""
        return f"{self.name}+{self.key_id.hex()}+{base64_text.encode(_ED25519 + self.public_bytes)}"

    @classmethod
    def from_vkey(cls, vkey: str) -> VerifierKey:
        """Parse `vkey`.

        Raises:
            FormatError: it is not one, its key type is not Ed25519, or its key id belongs
                to another key.
        """
        parts = vkey.split("+", 2)
        if len(parts) != 3 or not _is_key_name(parts[0]):
            raise FormatError("verifier key: expected name+keyid+base64")
        name, key_id, encoded = parts
        material = base64_text.decode(encoded, "verifier key: key")
        if material[:1] != _ED25519:
            raise FormatError(f"verifier key: key type {material[:1].hex() or 'none'}, expected 01")
        if len(material) < 1 + _KEY_SIZE:
            raise TruncatedError(
                f"verifier key: expected {1 + _KEY_SIZE} bytes, got {len(material)}"
            )
        if len(material) > 1 + _KEY_SIZE:
            raise TrailingBytesError(
                f"verifier key: expected {1 + _KEY_SIZE} bytes, got {len(material)}"
            )
        key = cls(name, material[1:])
        if key.key_id.hex() != key_id:
            raise FormatError(
                f"verifier key: key id is {key_id!r}, but this key has {key.key_id.hex()}"
            )
        return key

    def verify(self, message: bytes, signature: bytes) -> None:
        """Check an Ed25519 signature of 64 bytes; ``BadSignatureError`` where it fails."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_bytes).verify(signature, message)
        except InvalidSignature:
            raise BadSignatureError(f"signature by {self.label} does not verify") from None

    @property
    def label(self) -> str:
        """Name and key id, as messages show a key."""
        return f"{self.name}+{self.key_id.hex()}"


@dataclass(frozen=True, slots=True)
class SignerKey:
    """A named Ed25519 private key; neither ``repr`` nor an error shows it."""

    verifier: VerifierKey
    _private: Ed25519PrivateKey = field(repr=False, compare=False)

    @classmethod
    def from_private_bytes(cls, name: str, private: bytes) -> SignerKey:
        """The key of a 32-byte seed (RFC 8032 private key).

        Raises:
            InputError: the name cannot be a key name, or the seed is not 32 bytes.
        """
        if len(private) != _KEY_SIZE:
            raise InputError(f"an Ed25519 private key has {_KEY_SIZE} bytes, got {len(private)}")
        key = Ed25519PrivateKey.from_private_bytes(private)
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return cls(VerifierKey(name, public), key)

    @property
    def name(self) -> str:
        """The key's name."""
        return self.verifier.name

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes; the same message gives the same bytes."""
        return self._private.sign(message)


def sign_head(head: Head, signer: SignerKey) -> str:
    """The head as a signed note with one signature line."""
    text = head.text()
    blob = signer.verifier.key_id + signer.sign(text.encode())
    return f"{text}\n{_SIGNATURE_MARK}{signer.name} {base64_text.encode(blob)}\n"


def parse_note(note: str) -> SignedHead:
    """Read a note WITHOUT verifying it; for trust, use `open_head`.

    Raises:
        TooLargeError: more than 1,000,000 bytes or 100 signatures.
        TruncatedError: the text, the empty line, the signatures or a final newline is missing.
        FormatError: a line that is not what its place asks for; the message names it.
    """
    text, signatures = split_note(note)
    return _read_head(text, signatures)


def open_head(note: str, verifier: VerifierKey) -> Head:
    """Read a note and check that ``verifier`` signed it.

    Signatures by other keys are ignored, as signed-note demands. The origin is not
    compared with the key's name: the caller knows which ledger it asked for.

    Raises:
        BadSignatureError: no signature by this key, or one of them does not verify (the
            message names its line).
        FormatError: as `parse_note`.
    """
    text, signatures = split_note(note)
    verify_note(text, signatures, verifier)
    return _read_head(text, signatures).head


def split_note(note: str) -> tuple[str, tuple[NoteSignature, ...]]:
    """Any signed note, checkpoint or not: its text and signature lines, not verified.

    The text is all before the last empty line (C2SP signed-note). Errors as `parse_note`.
    """
    if len(note) > MAX_NOTE_BYTES:
        raise TooLargeError(f"note has more than {MAX_NOTE_BYTES} bytes")
    for at, line in enumerate(note.split("\n"), 1):
        if _UNPRINTABLE.search(line):
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
    """Check that ``verifier`` signed the text of a note that `split_note` read.

    Raises:
        BadSignatureError: no signature by this key, or any of its signatures fails.
    """
    mine = [s for s in signatures if (s.name, s.key_id) == (verifier.name, verifier.key_id)]
    if not mine:
        found = ", ".join(f"{s.name}+{s.key_id.hex()}" for s in signatures[:4])
        more = ", ..." if len(signatures) > 4 else ""
        raise BadSignatureError(
            f"note has no signature by {verifier.label}; it is signed by {found}{more}"
        )
    for signature in mine:
        try:
            verifier.verify(text.encode(), signature.signature)
        except BadSignatureError as error:
            raise BadSignatureError(f"note line {signature.line}: {error}") from None


def _read_head(text: str, signatures: tuple[NoteSignature, ...]) -> SignedHead:
    lines = text.split("\n")[:-1]
    for at, line in enumerate(lines, 1):
        if not line:
            raise FormatError(f"note line {at}: empty, but a checkpoint has no empty lines")
    if len(lines) < 3:
        raise TruncatedError(f"checkpoint has {len(lines)} lines, needs origin, size and root")
    if not _SIZE_PATTERN.fullmatch(lines[1]):
        raise FormatError(f"note line 2: size {lines[1][:40]!r} is not a decimal without zeros")
    size = int(lines[1])
    if size > MAX_SIZE:
        raise TooLargeError(f"note line 2: size {size} is beyond {MAX_SIZE}")
    root = base64_text.decode(lines[2], "note line 3: root")
    if len(root) != HASH_SIZE:
        raise FormatError(f"note line 3: root has {len(root)} bytes, expected {HASH_SIZE}")
    return SignedHead(Head(lines[0], size, root), signatures, text, tuple(lines[3:]))


def _read_signature(line: str, at: int) -> NoteSignature:
    name, separator, encoded = line.removeprefix(_SIGNATURE_MARK).partition(" ")
    if not line.startswith(_SIGNATURE_MARK) or not separator or not _is_key_name(name):
        raise FormatError(f"note line {at}: expected '— key-name base64', got {line[:40]!r}")
    blob = base64_text.decode(encoded, f"note line {at}: signature")
    if len(blob) <= _KEY_ID_SIZE:
        raise TruncatedError(f"note line {at}: signature has {len(blob)} bytes, needs a key id")
    return NoteSignature(name, blob[:_KEY_ID_SIZE], blob[_KEY_ID_SIZE:], at)


def _is_key_name(name: str) -> bool:
    spaced = any(map(str.isspace, name))
    return bool(name) and not spaced and "+" not in name and not _UNPRINTABLE.search(name)
