"""A line of the local anchor file: what a receipt of network ``local`` brings as evidence.

docs/FORMAT.md, section 8.2. A line is canonical JSON (RFC 8785) without a newline::

    {"payload": 72 hex, "prev": 64 hex, "seq": n, "signature": 128 hex, "ts": RFC 3339, "v": 1}

``seq`` counts from 0; ``prev`` is the SHA-256 of the line before without its newline (64
zeros in the first). ``signature`` is Ed25519 (RFC 8032) over ``ml-provenance/local/v1`` and
a zero byte, followed by the canonical JSON of the line without ``signature``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from provenance.errors import ProofError, TruncatedError
from provenance.formats.ed25519 import verify_signature
from provenance.formats.fields import Fields
from provenance.formats.json_text import canonical_json
from provenance.formats.record import Json, check_timestamp, timestamp

LOCAL_VERSION: Final = 1
LOCAL_CONTEXT: Final = b"ml-provenance/local/v1\0"
MAX_LINE_BYTES: Final = 4096
FIRST_PREV: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class LocalLine:
    """A line whose signature fits: its number from 0, the payload (36 bytes), the digest of the
    line before (zeros in the first), Unix seconds by the writer's clock, and its bytes without the
    newline with their SHA-256."""

    seq: int
    payload: bytes
    prev: bytes
    ts: float
    line: bytes
    digest: bytes


def write_line(
    previous: LocalLine | None, payload: bytes, ts_ns: int, sign: Callable[[bytes], bytes]
) -> bytes:
    """The line that carries a payload behind another one (None: the first), without its newline."""
    unsigned: dict[str, Json] = {
        "v": LOCAL_VERSION,
        "seq": previous.seq + 1 if previous else 0,
        "payload": payload.hex(),
        "ts": timestamp(ts_ns),
        "prev": (previous.digest if previous else FIRST_PREV).hex(),
    }
    signature = sign(LOCAL_CONTEXT + canonical_json(unsigned))
    return canonical_json({**unsigned, "signature": signature.hex()})


def read_line(line: bytes, public_key: bytes, name: str = "local line") -> LocalLine:
    """Read a line without its newline, or ``FormatError``, and verify its signature by a public key
    of 32 bytes (``BadSignatureError``)."""
    fields = Fields.parse_canonical(line, name, LOCAL_VERSION, limit=MAX_LINE_BYTES)
    fields.only("payload", "prev", "seq", "signature", "ts", "v")
    ts, signature = fields.text("ts"), fields.hex("signature", 64)
    check_timestamp(ts, name)
    found = LocalLine(
        seq=fields.integer("seq"),
        payload=fields.hex("payload", 36),
        prev=fields.hex("prev", 32),
        ts=datetime.fromisoformat(ts).timestamp(),
        line=line,
        digest=hashlib.sha256(line).digest(),
    )
    unsigned = {key: value for key, value in fields.raw.items() if key != "signature"}
    verify_signature(public_key, signature, LOCAL_CONTEXT + canonical_json(unsigned), name)
    return found


def read_lines(
    data: bytes, public_key: bytes, previous: LocalLine | None = None
) -> list[LocalLine]:
    """Read a file, or what follows a line of it: raises as :func:`read_line`, and ``ProofError``
    for a line that is missing, doubled or out of order."""
    *lines, rest = data.split(b"\n")
    if rest:
        raise TruncatedError("local: the last line is cut off")
    found = []
    for line in lines:
        seq, prev = (previous.seq + 1, previous.digest) if previous else (0, FIRST_PREV)
        name = f"local anchor line {seq + 1}"
        previous = read_line(line, public_key, name)
        if (previous.seq, previous.prev) != (seq, prev):
            raise ProofError(f"{name}: it does not follow the line before")
        found.append(previous)
    return found


def local_transaction_id(payload: bytes) -> str:
    """``local:`` and 32 hex digits of SHA-256(payload)."""
    return f"local:{hashlib.sha256(payload).hexdigest()[:32]}"
