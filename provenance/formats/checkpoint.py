"""Signed heads: the ledger at a size, as a C2SP tlog-checkpoint in a signed note.

docs/FORMAT.md, section 7; source: https://c2sp.org/tlog-checkpoint. ::

    example.org/ledger                             origin: which ledger
    42                                             size: entries, decimal
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=   root: RFC 6962, base64

Errors are those of :mod:`provenance.formats.note`. Nothing a note says counts before `open_head`
has returned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from provenance.errors import FormatError, InputError, TooLargeError, TruncatedError
from provenance.formats.merkle import HASH_SIZE, MAX_SIZE
from provenance.formats.note import (
    SIGNATURE_MARK,
    UNPRINTABLE,
    NoteSignature,
    SignerKey,
    VerifierKey,
    decode_base64,
    encode_base64,
    split_note,
    verify_note,
)

_SIZE_PATTERN: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Head:
    """The ledger at a size: ``origin`` names it in one line, by convention a URL without scheme;
    ``root`` is the RFC 6962 root, 32 bytes. ``InputError`` for what no checkpoint can say."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or UNPRINTABLE.search(self.origin):
            raise InputError(f"origin of a head must be one line of text, got {self.origin!r}")
        if not 0 <= self.size <= MAX_SIZE:
            raise InputError(f"size of a head must be 0 to {MAX_SIZE}, got {self.size}")
        if len(self.root) != HASH_SIZE:
            raise InputError(f"root of a head must be {HASH_SIZE} bytes, got {len(self.root)}")

    def text(self) -> str:
        """The three lines that are signed, each with its newline."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A note as it was read, NOT verified (`open_head` does that): its signed text with the final
    newline, and the text's lines after the root, of which this project writes none."""

    head: Head
    signatures: tuple[NoteSignature, ...]
    text: str
    extensions: tuple[str, ...] = ()


def sign_head(head: Head, signer: SignerKey) -> str:
    """The head as a signed note with one signature line."""
    text = head.text()
    blob = signer.verifier.key_id + signer.sign(text.encode())
    return f"{text}\n{SIGNATURE_MARK}{signer.name} {encode_base64(blob)}\n"


def parse_note(note: str) -> SignedHead:
    """Read a note WITHOUT verifying it, or ``FormatError``; for trust, use `open_head`."""
    text, signatures = split_note(note)
    return _read_head(text, signatures)


def open_head(note: str, verifier: VerifierKey) -> Head:
    """Read a note and check that ``verifier`` signed it.

    Signatures by other keys are ignored, as signed-note demands. The origin is not
    compared with the key's name: the caller knows which ledger it asked for.

    Raises:
        BadSignatureError: no signature by this key, or one of them does not verify.
        FormatError: as `parse_note`.
    """
    text, signatures = split_note(note)
    verify_note(text, signatures, verifier)
    return _read_head(text, signatures).head


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
    root = decode_base64(lines[2], "note line 3: root")
    if len(root) != HASH_SIZE:
        raise FormatError(f"note line 3: root has {len(root)} bytes, expected {HASH_SIZE}")
    return SignedHead(Head(lines[0], size, root), signatures, text, tuple(lines[3:]))
