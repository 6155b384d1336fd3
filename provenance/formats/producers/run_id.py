"""Run ids: a UUID that commits to the run's key.

FROZEN FORMAT. Pure: no I/O, no clock, no randomness.

A run id is a UUID of version 8 (RFC 9562, section 5.8)::

    48 bits   Unix time in milliseconds, so that runs sort by their start
     4 bits   version, 1000
    12 bits   the first 12 bits of SHA-256(the run's Ed25519 public key, 32 bytes)
     2 bits   variant, 10
    62 bits   the next 62 bits of that hash

Whoever knows a run id and not its private key cannot sign for it: another key with the same
74 bits takes 2^74 tries.
"""

from __future__ import annotations

import hashlib
from typing import Final
from uuid import UUID

from provenance.errors import FormatError, InputError

MAX_MILLISECONDS: Final = 2**48 - 1


def run_id(public_key: bytes, milliseconds: int) -> UUID:
    """The id of a run with this key.

    Args:
        public_key: The run's Ed25519 public key, 32 bytes.
        milliseconds: Unix time of its start, 0 to 2^48 - 1.

    Raises:
        InputError: Either is out of range.
    """
    if len(public_key) != 32:
        raise InputError(f"run key of {len(public_key)} bytes, expected 32")
    if not 0 <= milliseconds <= MAX_MILLISECONDS:
        raise InputError(f"run id: time {milliseconds} ms, expected 0 to {MAX_MILLISECONDS}")
    digest = int.from_bytes(hashlib.sha256(public_key).digest()[:10], "big") >> 6  # 74 bits
    value = milliseconds << 80 | 0x8 << 76 | (digest >> 62) << 64 | 0x2 << 62
    return UUID(int=value | digest & (2**62 - 1))


def fits_key(run: UUID, public_key: bytes) -> bool:
    """Whether the run id commits to this key."""
    return len(public_key) == 32 and run == run_id(public_key, run.int >> 80)


def check_run_id(run: UUID, public_key: bytes) -> None:
    """Refuse a run id of another key.

    Raises:
        FormatError: The id does not commit to ``public_key``.
    """
    if not fits_key(run, public_key):
        raise FormatError(
            f"run {run} does not commit to key {public_key.hex()[:16]}, expected a UUIDv8 made "
            "of the run's key"
        )
