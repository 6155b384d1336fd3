"""A line of the local anchor file: what a receipt of network ``local`` brings as evidence.

WARNING: FROZEN FORMAT READER, version 1, as :mod:`provenance.chains.local` writes it. Pure:
no I/O, no clock, no randomness. Canonical JSON (RFC 8785) without a newline::

    {"payload": 72 hex, "prev": 64 hex, "seq": n, "signature": 128 hex, "ts": RFC 3339, "v": 1}

``signature`` is Ed25519 (RFC 8032) over ``ml-provenance/local/v1`` and a zero byte, followed
by the canonical JSON of the line without ``signature``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from provenance.errors import (
    BadSignatureError,
    FormatError,
    InputError,
    TooLargeError,
    UnknownVersionError,
)
from provenance.formats.record import canonical_json, check_timestamp, parse_json

LOCAL_VERSION: Final = 1
LOCAL_CONTEXT: Final = b"ml-provenance/local/v1\0"
MAX_LINE_BYTES: Final = 4096
_HEX: Final = {"payload": 36, "prev": 32, "signature": 64}
_FIELDS: Final = {"payload", "prev", "seq", "signature", "ts", "v"}


@dataclass(frozen=True, slots=True)
class LocalLine:
    """A line whose signature fits.

    Attributes:
        seq: Its number in the file, from 0. payload: 36 bytes.
        ts: Unix seconds by the writer's clock. digest: SHA-256 of the line, 32 bytes.
    """

    seq: int
    payload: bytes
    ts: float
    digest: bytes


def read_line(line: bytes, public_key: bytes) -> LocalLine:
    """Read a line and verify its signature; its place in the file is for whoever has that.

    Args:
        line: Without its newline. public_key: 32 bytes.

    Raises:
        FormatError, UnknownVersionError, TooLargeError: Not a line of this format.
        BadSignatureError: Another key signed it, or it was changed.
    """
    if len(line) > MAX_LINE_BYTES:
        raise TooLargeError(f"local line of {len(line)} bytes, at most {MAX_LINE_BYTES}")
    raw = parse_json(line, "local line")
    if not isinstance(raw, dict):
        raise FormatError("local line: not an object")
    version = raw.get("v")
    if version != LOCAL_VERSION or isinstance(version, bool):
        raise UnknownVersionError(f"local line: version {version!r}, expected {LOCAL_VERSION}")
    try:
        canonical = canonical_json(raw)
    except InputError as error:
        raise FormatError(f"local line: {error}") from error
    if raw.keys() != _FIELDS or canonical != line:
        raise FormatError("local line: not in canonical form")
    seq, ts = raw["seq"], raw["ts"]
    if not isinstance(seq, int) or isinstance(seq, bool) or seq < 0 or not isinstance(ts, str):
        raise FormatError("local line: a field of the wrong type")
    check_timestamp(ts, "local line")
    payload, _, signature = (_bytes(raw, name) for name in ("payload", "prev", "signature"))
    del raw["signature"]
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(signature, LOCAL_CONTEXT + canonical_json(raw))
    except (InvalidSignature, ValueError) as error:
        raise BadSignatureError("local line: the signature does not fit") from error
    when = datetime.fromisoformat(ts).timestamp()
    return LocalLine(seq, payload, when, hashlib.sha256(line).digest())


def local_transaction_id(payload: bytes) -> str:
    """``local:`` and 32 hex digits of SHA-256(payload)."""
    return f"local:{hashlib.sha256(payload).hexdigest()[:32]}"


def _bytes(raw: dict[str, Any], name: str) -> bytes:
    size = _HEX[name]
    if not isinstance(raw[name], str) or not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", raw[name]):
        raise FormatError(f"local line: {name} must be {2 * size} lower-case hex digits")
    return bytes.fromhex(raw[name])
