"""Which run this process writes, and as which rank.

Processes that share ``PROVENANCE_RUN_ID`` and ``PROVENANCE_RUN_SEED`` write one run.
"""

from __future__ import annotations

import os
from uuid import UUID

from provenance.capture.keys import RunKeys, new_run_keys
from provenance.errors import ConfigError, FormatError
from provenance.formats.producers.run_id import check_run_id


def run_identity() -> tuple[RunKeys, int, int]:
    """Keys, rank and world size from the environment: ``PROVENANCE_RUN_ID``,
    ``PROVENANCE_RUN_SEED`` (64 hex), ``RANK``, ``WORLD_SIZE``; a new run of one process where
    the first two are not set.

    Raises:
        ConfigError: A variable that does not parse, or an id of another seed.
    """
    shared, seed = os.environ.get("PROVENANCE_RUN_ID"), os.environ.get("PROVENANCE_RUN_SEED")
    if not shared and not seed:
        return new_run_keys(), 0, 1
    if not shared or not seed:
        missing = "PROVENANCE_RUN_SEED" if shared else "PROVENANCE_RUN_ID"
        raise ConfigError(missing, "not set, expected both the run's id and its seed")
    try:
        run = UUID(shared)
    except ValueError as error:
        raise ConfigError("PROVENANCE_RUN_ID", f"found {shared!r}, expected a UUID") from error
    try:
        secret = bytes.fromhex(seed)
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise ConfigError("PROVENANCE_RUN_SEED", "is not 64 hex digits")
    keys = RunKeys(run, secret)
    try:
        check_run_id(run, keys.public_key)
    except FormatError as error:
        raise ConfigError("PROVENANCE_RUN_ID", str(error)) from error
    rank, size = _environment_number("RANK", 0), _environment_number("WORLD_SIZE", 1)
    if not 0 <= rank < size:
        raise ConfigError("RANK", f"found {rank}, expected 0 to {size - 1} (WORLD_SIZE {size})")
    return keys, rank, size


def _environment_number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(name, f"found {text!r}, expected a whole number")
    return int(text)
