"""Standard base64, padded and canonical (RFC 4648 section 4), as C2SP's formats write it."""

from __future__ import annotations

import base64

from provenance.errors import FormatError


def encode(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode("ascii")


def decode(text: str, what: str) -> bytes:
    """Base64 as bytes; only the spelling that `encode` gives.

    Raises:
        FormatError: another spelling, or no base64; begins with ``what``.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error, or characters beyond ASCII
        data = None
    if data is None or encode(data) != text:
        raise FormatError(f"{what} is not base64: {text[:44]!r}")
    return data
