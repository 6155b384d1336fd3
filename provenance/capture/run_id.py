"""Run ids: UUID version 7 (RFC 9562, section 5.7), so that runs sort by their start.

Processes that share ``PROVENANCE_RUN_ID`` write one run.
"""

from __future__ import annotations

import os
import secrets
import time
from uuid import UUID

from provenance.errors import ConfigError


def new_run_id() -> UUID:
    """48 bits of Unix milliseconds, then version, variant and 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def run_identity() -> tuple[UUID, int, int]:
    """Run, rank and world size from the environment: ``PROVENANCE_RUN_ID``, ``RANK``,
    ``WORLD_SIZE``; a new run of one process where the first is not set.

    Raises:
        ConfigError: A variable that does not parse.
    """
    shared = os.environ.get("PROVENANCE_RUN_ID")
    if not shared:
        return new_run_id(), 0, 1
    try:
        run = UUID(shared)
    except ValueError as error:
        raise ConfigError("PROVENANCE_RUN_ID", f"found {shared!r}, expected a UUID") from error
    rank, size = _environment_number("RANK", 0), _environment_number("WORLD_SIZE", 1)
    if not 0 <= rank < size:
        raise ConfigError("RANK", f"found {rank}, expected 0 to {size - 1} (WORLD_SIZE {size})")
    return run, rank, size


def _environment_number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(name, f"found {text!r}, expected a whole number")
    return int(text)
