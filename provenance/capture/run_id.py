"""Run ids: UUID version 7 (RFC 9562, section 5.7), so that runs sort by their start."""

from __future__ import annotations

import secrets
import time
from uuid import UUID


def new_run_id() -> UUID:
    """48 bits of Unix milliseconds, then version, variant and 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)
