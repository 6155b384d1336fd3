"""Cosignatures: what witnesses of the ledger say of a head, as C2SP tlog-cosignature.

docs/FORMAT.md, section 7; source: https://c2sp.org/tlog-cosignature, the Ed25519 type. A note may
carry ML-DSA-44 cosignatures (type 06): they count as signatures by strangers. ::

    — witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRa...       a line of a signed note:
                                base64(key id || time (8 bytes, big-endian) || signature)
    cosignature/v1                                              what Ed25519 signs:
    time 1679315147                                             that time, decimal
    example.com/behind-the-sofa                                 the text of the note, whole
    ...

A witness says that, at that time, this was the largest ledger of that origin it had seen,
and that it extends all it had seen before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from provenance.errors import BadSignatureError
from provenance.formats.note import NamedKey, NoteSignature, encode_base64

MAX_TIME: Final = 2**63 - 1

_TIME_SIZE: Final = 8
_SIZE: Final = _TIME_SIZE + 64
_YEAR_10000: Final = 253_402_300_800


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A signature line that has the shape of a cosignature; NOT verified. ``time`` is in Unix
    seconds as the witness says, ``key_id`` 4 bytes, ``signature`` 64."""

    name: str
    key_id: bytes
    time: int
    signature: bytes

    @classmethod
    def of(cls, line: NoteSignature) -> Cosignature | None:
        """The cosignature in a signature line; None where it has another shape."""
        time = int.from_bytes(line.signature[:_TIME_SIZE], "big")
        if len(line.signature) != _SIZE or time > MAX_TIME:
            return None
        return cls(line.name, line.key_id, time, line.signature[_TIME_SIZE:])

    def line(self) -> str:
        """The signature line of a note, with its newline."""
        blob = self.key_id + self.time.to_bytes(_TIME_SIZE, "big") + self.signature
        return f"— {self.name} {encode_base64(blob)}\n"

    @property
    def when(self) -> str:
        """``2023-03-20T12:25:47Z``; the bare seconds beyond the year 9999."""
        if self.time >= _YEAR_10000:
            return f"second {self.time}"
        return datetime.fromtimestamp(self.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def label(self) -> str:
        """Name of the witness as a terminal can show it: it is a stranger's text."""
        name = self.name if self.name.isprintable() else ascii(self.name)
        return name if len(name) <= 80 else name[:77] + "..."


class WitnessKey(NamedKey):
    """The named public key of a witness: key type 04."""

    __slots__ = ()
    TYPE = b"\x04"
    TITLE = "witness key"

    def cosignatures(
        self, text: str, signatures: Iterable[NoteSignature]
    ) -> tuple[Cosignature, ...]:
        """Those of a note's signatures that this witness made, each verified;
        ``BadSignatureError`` where a line names this key and is not its cosignature."""
        found = []
        for line in signatures:
            if (line.name, line.key_id) != (self.name, self.key_id):
                continue
            cosignature = Cosignature.of(line)
            if cosignature is None or not self._made(cosignature, text):
                raise BadSignatureError(
                    f"note line {line.line}: cosignature by {self.label} does not verify"
                )
            found.append(cosignature)
        return tuple(found)

    def _made(self, cosignature: Cosignature, text: str) -> bool:
        try:
            self.verify(cosigned_message(text, cosignature.time), cosignature.signature)
        except BadSignatureError:
            return False
        return True


def cosigned_message(text: str, time: int) -> bytes:
    """The bytes that a witness signs at a Unix time."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()
