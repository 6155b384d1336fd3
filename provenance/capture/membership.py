"""Which run this process writes, with which keys, and as which rank.

One run can be written by many processes, on one host or on many, that share its id and seed.
They come from, in this order:

1. ``PROVENANCE_RUN_ID`` and ``PROVENANCE_RUN_SEED`` (64 hex digits), as ``provenance run`` sets
   them; or ``PROVENANCE_RUN_KEY_FILE``, a file of mode 0600 on storage that all share, which may
   appear a little later than a rank; or ``PROVENANCE_RUN_ID`` alone, where this host has its key.
2. ``torch.distributed``, where a process group is up: rank 0 makes them and hands them over
   through the group's store. No collective: whoever makes no tracker holds up nobody.
3. Nobody: a new run of one process. A process that a launcher started beside others is
   refused here, since each of them would write a run of its own.

Rank and world size come from ``PROVENANCE_RANK`` and ``PROVENANCE_WORLD_SIZE``, the process
group, or the launcher's variables: torchrun, srun, Open MPI, MPICH, Lightning.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from provenance.capture.keys import (
    KEY_FILE,
    RunKeys,
    load_run_keys,
    new_run_keys,
    read_key_file,
)
from provenance.errors import ConfigError, FormatError, ProvenanceError
from provenance.formats.producers.run_id import check_run_id

RUN_ID, RUN_SEED, RUN_KEY_FILE = (
    "PROVENANCE_RUN_ID",
    "PROVENANCE_RUN_SEED",
    "PROVENANCE_RUN_KEY_FILE",
)
RUN_WAIT = "PROVENANCE_RUN_WAIT"
"""Seconds that a rank waits for rank 0 or for the key file; 60 where it is not set."""
HAND_OVER = (
    "start the ranks with `provenance run -- COMMAND`, or give each of them PROVENANCE_RUN_ID and "
    "PROVENANCE_RUN_SEED, or PROVENANCE_RUN_KEY_FILE (where one process alone tracks: "
    "PROVENANCE_WORLD_SIZE=1)"
)
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)
_trackers = 0


class Membership(NamedTuple):
    """A process's part in a run. ``rank`` counts from 0 to ``world_size`` - 1."""

    keys: RunKeys
    rank: int
    world_size: int


def join_run(spool_dir: Path) -> Membership:
    """This process's part in the run that it is told of, or in a new one.

    Args:
        spool_dir: Where the key of a run of this host lies.

    Raises:
        ConfigError: A variable that does not parse, an id of another seed, or a rank that
            nobody gave the run's seed: one line says how to hand it over.
    """
    group = _process_group()
    told = _told_keys(spool_dir, os.environ)
    if told is not None:
        rank, size = (group and _ranks_of(group)) or _ranks(os.environ, strict=True) or (0, 1)
        return Membership(told, rank, size)
    own = _own_ranks(os.environ)
    if own == (0, 1):
        return Membership(new_run_keys(), 0, 1)
    if group is not None:
        rank, size = own or _ranks_of(group)
        return Membership(_keys_of_rank_0(group), rank, size)
    ranks = own or _ranks(os.environ, strict=False) or (0, 1)
    if ranks[1] > 1:
        raise ConfigError(
            RUN_SEED, f"not set, and this is rank {ranks[0]} of {ranks[1]}: {HAND_OVER}"
        )
    return Membership(new_run_keys(), *ranks)


def _told_keys(spool_dir: Path, env: Mapping[str, str]) -> RunKeys | None:
    """The keys that the environment names; None where it names no run."""
    text, seed, file = (env.get(name) for name in (RUN_ID, RUN_SEED, RUN_KEY_FILE))
    run = None
    if text:
        try:
            run = UUID(text)
        except ValueError as error:
            raise ConfigError(RUN_ID, f"found {text!r}, expected a UUID") from error
    if seed:
        if run is None:
            raise ConfigError(RUN_ID, f"not set, and {RUN_SEED} is: the two belong together")
        return _keys(run, seed)
    if file:
        return _keys_in(Path(file), run, _wait_s(env))
    if run is None:
        return None
    if not (spool_dir / str(run) / KEY_FILE).exists():
        raise ConfigError(RUN_SEED, f"not set, and this host has no key of run {run}: {HAND_OVER}")
    try:
        return load_run_keys(spool_dir / str(run))
    except ProvenanceError as error:
        raise ConfigError(RUN_ID, str(error)) from error


def _keys(run: UUID, seed: str) -> RunKeys:
    try:
        secret = bytes.fromhex(seed)
    except ValueError:
        secret = b""
    if len(secret) != 32:  # what was found is a secret
        raise ConfigError(RUN_SEED, "is not 64 hex digits")
    keys = RunKeys(run, secret)
    try:
        check_run_id(run, keys.public_key)
    except FormatError:
        raise ConfigError(RUN_ID, f"{run} is not the id of the run with that seed") from None
    return keys


def _keys_in(path: Path, run: UUID | None, wait_s: float) -> RunKeys:
    deadline = time.monotonic() + wait_s
    while not path.exists():
        if time.monotonic() >= deadline:
            raise ConfigError(RUN_KEY_FILE, f"{path} is not there after {wait_s:g} s")
        time.sleep(0.05)
    try:
        keys = read_key_file(path)
    except ProvenanceError as error:
        raise ConfigError(RUN_KEY_FILE, str(error)) from error
    if run is not None and run != keys.run:
        raise ConfigError(RUN_KEY_FILE, f"{path} is the key of run {keys.run}, {RUN_ID} is {run}")
    return keys


def _own_ranks(env: Mapping[str, str]) -> tuple[int, int] | None:
    """``PROVENANCE_RANK`` and ``PROVENANCE_WORLD_SIZE``; None where neither is set."""
    if not {"PROVENANCE_RANK", "PROVENANCE_WORLD_SIZE"} & env.keys():
        return None
    return _pair(env, "PROVENANCE_RANK", "PROVENANCE_WORLD_SIZE")


def _ranks(env: Mapping[str, str], *, strict: bool) -> tuple[int, int] | None:
    """Rank and world size as the environment tells them; None where it tells none.

    Args:
        strict: Refuse a pair that cannot be; else it is passed over, since who gave it may
            have meant something else.
    """
    own = _own_ranks(env)
    if own is not None:
        return own
    for rank, size in _LAUNCHERS:
        if strict and rank == "RANK" and {rank, size} & env.keys():
            return _pair(env, *_lightning(env) or (rank, size))
        pair = _plausible(env, rank, size)
        if pair is not None:
            return pair
    if "SLURM_STEP_ID" in env:  # inside srun, not in the batch script around it
        pair = _plausible(env, "SLURM_PROCID", "SLURM_NTASKS")
        if pair is not None:
            return pair
    lightning = _lightning(env)
    return _plausible(env, *lightning) if lightning is not None else None


def _lightning(env: Mapping[str, str]) -> tuple[str, str] | None:
    """Lightning tells WORLD_SIZE and LOCAL_RANK, and no RANK: on one node they are the same."""
    one_node = env.get("NODE_RANK", env.get("GROUP_RANK", "0")) == "0"
    if "RANK" not in env and {"LOCAL_RANK", "WORLD_SIZE"} <= env.keys() and one_node:
        return "LOCAL_RANK", "WORLD_SIZE"
    return None


def _plausible(env: Mapping[str, str], rank: str, size: str) -> tuple[int, int] | None:
    if not {rank, size} <= env.keys():
        return None
    try:
        return _pair(env, rank, size)
    except ConfigError:
        return None


def _pair(env: Mapping[str, str], rank_name: str, size_name: str) -> tuple[int, int]:
    rank, size = _number(env, rank_name, 0), _number(env, size_name, 1)
    if not 0 <= rank < size:
        raise ConfigError(rank_name, f"found {rank}, expected 0 to {size - 1} ({size_name} {size})")
    return rank, size


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ConfigError(name, f"found {text[:40]!r}, expected a whole number")
    return int(text)


def _wait_s(env: Mapping[str, str]) -> float:
    text = env.get(RUN_WAIT, "60")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise ConfigError(RUN_WAIT, f"found {text[:40]!r}, expected seconds from 0 to 86400")
    return seconds


# --- torch.distributed, where the training uses it ---------------------------------------


def _process_group() -> Any:
    """The ``torch.distributed`` module where a process group of several is up, else None."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed if distributed.get_world_size() > 1 else None


def _ranks_of(group: Any) -> tuple[int, int]:
    return int(group.get_rank()), int(group.get_world_size())


def _keys_of_rank_0(group: Any) -> RunKeys:
    """Rank 0's new keys, through the group's store: every rank's n-th tracker has the same."""
    global _trackers
    _trackers += 1
    store = group.distributed_c10d._get_default_store()
    name, wait_s = f"ml-provenance/run/{_trackers}", _wait_s(os.environ)
    if group.get_rank() == 0:
        keys = new_run_keys()
        store.set(name, f"{keys.run} {keys.seed.hex()}")
        return keys
    try:
        store.wait([name], timedelta(seconds=wait_s))
    except RuntimeError as error:
        raise ConfigError(
            RUN_SEED, f"rank 0 made no tracker within {wait_s:g} s, so nobody has it: {HAND_OVER}"
        ) from error
    run, seed = bytes(store.get(name)).decode().split()
    return RunKeys(UUID(run), bytes.fromhex(seed))
