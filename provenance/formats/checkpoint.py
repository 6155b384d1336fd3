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

How a note is signed and by which keys: :mod:`provenance.formats.note`.

Source: https://c2sp.org/tlog-checkpoint.

Errors: a value that cannot be written (`Head`, `SignerKey`) raises ``InputError``; text
that does not decode raises a ``FormatError`` naming its line; a signature that is missing
or does not verify raises ``BadSignatureError``. Nothing a note says counts before
`open_head` has returned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from provenance.errors import (
    FormatError,
    InputError,
    TooLargeError,
    TruncatedError,
)
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


def sign_head(head: Head, signer: SignerKey) -> str:
    """The head as a signed note with one signature line."""
    text = head.text()
    blob = signer.verifier.key_id + signer.sign(text.encode())
    return f"{text}\n{SIGNATURE_MARK}{signer.name} {encode_base64(blob)}\n"


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
