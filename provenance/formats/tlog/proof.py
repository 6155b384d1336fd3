"""Inclusion proofs of the ledger as C2SP tlog-proof: one text file, checked offline.

docs/FORMAT.md, section 10.2; source: https://c2sp.org/tlog-proof. The entry that is proven is not
in the file: for this ledger it is a run root, 32 bytes. One spelling only is read, so that
decoding and encoding again gives the same bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from provenance.errors import (
    FormatError,
    InputError,
    ProofError,
    TooLargeError,
    TruncatedError,
    UnknownVersionError,
)
from provenance.formats.checkpoint import Head, open_head, parse_note
from provenance.formats.merkle import HASH_SIZE, MAX_SIZE, verify_inclusion
from provenance.formats.note import VerifierKey, decode_base64, encode_base64

HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_TLOG_PROOF_BYTES: Final = 1024**2
MAX_EXTRA_BYTES: Final = 32_768
MAX_HASHES: Final = 63
"""Of the longest path in a tree of 2^63 - 1 leaves."""

_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})", re.ASCII)
_EXTRA: Final = "extra "


@dataclass(frozen=True, slots=True)
class TlogProof:
    """That an entry is in the ledger under a signed head: an RFC 6962 inclusion proof, lowest
    first, 32 bytes each; the head as text; and bytes that nothing vouches for. ``InputError`` for
    what cannot be written."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    extra: bytes | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.index < MAX_SIZE:
            raise InputError(f"index of a tlog-proof must be 0 to {MAX_SIZE - 1}")
        if len(self.hashes) > MAX_HASHES or any(len(h) != HASH_SIZE for h in self.hashes):
            raise InputError(f"a tlog-proof has at most {MAX_HASHES} hashes of {HASH_SIZE} bytes")
        if self.extra is not None and not 0 < len(self.extra) <= MAX_EXTRA_BYTES:
            raise InputError(f"extra data of a tlog-proof is 1 to {MAX_EXTRA_BYTES} bytes or None")

    def encode(self) -> str:
        """The text of the file."""
        lines = [HEADER]
        if self.extra is not None:
            lines.append(_EXTRA + encode_base64(self.extra))
        lines.append(f"index {self.index}")
        lines += map(encode_base64, self.hashes)
        return "\n".join(lines) + "\n\n" + self.checkpoint

    @classmethod
    def decode(cls, document: str | bytes) -> TlogProof:
        """Decode `encode`, or ``FormatError`` naming the line; nothing is verified."""
        if len(document) > MAX_TLOG_PROOF_BYTES:
            raise TooLargeError(f"tlog-proof has more than {MAX_TLOG_PROOF_BYTES} bytes")
        try:
            text = document if isinstance(document, str) else document.decode()
        except UnicodeDecodeError:
            raise FormatError("tlog-proof is not UTF-8 text") from None
        first, _, rest = text.partition("\n")
        if first != HEADER:
            raise UnknownVersionError(f"tlog-proof line 1: {first[:60]!r}, expected {HEADER!r}")
        head, separator, checkpoint = rest.partition("\n\n")
        if not separator:
            raise TruncatedError("tlog-proof has no empty line before its checkpoint")
        lines = head.split("\n")
        extra = None
        if lines[0].startswith(_EXTRA):
            extra = _extra(lines.pop(0))
        at = 2 if extra is None else 3
        if not lines:
            raise TruncatedError(f"tlog-proof line {at}: expected index")
        index = _index(lines[0], at)
        if len(lines) - 1 > MAX_HASHES:
            raise TooLargeError(f"tlog-proof has {len(lines) - 1} hashes, more than {MAX_HASHES}")
        hashes = tuple(_hash(line, number) for number, line in enumerate(lines[1:], at + 1))
        parse_note(checkpoint)
        return cls(index, hashes, checkpoint, extra)

    def verify(self, entry: bytes, verifier: VerifierKey | None) -> Head:
        """Check that ``entry`` is at ``index`` under the checkpoint.

        Args:
            entry: As it was logged: a run root, 32 bytes.
            verifier: The ledger's key; the checkpoint's origin must be its name. None
                checks neither signature nor origin.

        Returns:
            The head that the checkpoint states.

        Raises:
            BadSignatureError, FormatError: as `open_head`.
            ProofError: another ledger's checkpoint, or the path does not lead to its root.
        """
        if verifier is None:
            head = parse_note(self.checkpoint).head
        else:
            head = open_head(self.checkpoint, verifier)
            if head.origin != verifier.name:
                raise ProofError(f"checkpoint of ledger {head.origin!r}, not {verifier.name!r}")
        verify_inclusion(entry, self.index, head.size, self.hashes, head.root)
        return head


def _extra(line: str) -> bytes:
    data = decode_base64(line.removeprefix(_EXTRA), "tlog-proof line 2: extra")
    if not data:
        raise FormatError("tlog-proof line 2: extra without data")
    if len(data) > MAX_EXTRA_BYTES:
        raise TooLargeError(f"tlog-proof line 2: extra has more than {MAX_EXTRA_BYTES} bytes")
    return data


def _index(line: str, at: int) -> int:
    match = _INDEX.fullmatch(line)
    if match is None:
        raise FormatError(f"tlog-proof line {at}: expected 'index' and a number, got {line[:40]!r}")
    index = int(match[1])
    if index >= MAX_SIZE:
        raise TooLargeError(f"tlog-proof line {at}: index {index} is beyond {MAX_SIZE - 1}")
    return index


def _hash(line: str, at: int) -> bytes:
    data = decode_base64(line, f"tlog-proof line {at}: hash")
    if len(data) != HASH_SIZE:
        raise FormatError(f"tlog-proof line {at}: hash has {len(data)} bytes, needs {HASH_SIZE}")
    return data
