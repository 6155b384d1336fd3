"""Which run this process writes, with which keys, and as which rank.

One run can be written by many processes, on one host or on many, that share its id and seed.
They come from, in this order:

1. ``PROVENANCE_RUN_ID`` and ``PROVENANCE_RUN_SEED`` (64 hex digits), as ``provenance run`` sets
   them; or ``PROVENANCE_RUN_KEY_FILE``, a file of mode 0600 on storage that all share, which
   rank 0 makes where there is none and the others wait for; or ``PROVENANCE_RUN_ID`` alone, where
   this host has its key.
2. ``torch.distributed``, where a process group is up: rank 0 makes them and hands them over
   through the group's store. No collective: whoever makes no tracker holds up nobody. Whoever
   reaches that store can read them, as they can the gradients.
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
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from provenance.capture.keys import (
    KEY_FILE,
    RunKeys,
    load_run_keys,
    make_key_file,
    new_run_keys,
    read_key_file,
)
from provenance.errors import ConfigError, FormatError, ProvenanceError
from provenance.formats.producers.certificate import check_run_id

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
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
_trackers = 0


class Membership(NamedTuple):
    """A process's part in a run. ``rank`` counts from 0 to ``world_size`` - 1."""

    keys: RunKeys
    rank: int
    world_size: int


def join_run(spool_dir: Path, told: Mapping[str, str] | None = None) -> Membership:
    """This process's part in the run that it is told of, or in a new one; the key of a run of
    this host lies in the spool. ``told``: instead of the environment.

    Raises:
        ConfigError: A variable that does not parse, an id of another seed, or a rank that
            nobody gave the run's seed: one line says how to hand it over.
    """
    global _trackers
    group, env = _process_group(), os.environ if told is None else told
    own = _own_ranks(env)
    run = _told_id(env)
    is_told = run is not None or bool(env.get(RUN_SEED) or env.get(RUN_KEY_FILE))
    of_group = group and (int(group.get_rank()), int(group.get_world_size()))
    ranks = own or of_group or launched_ranks(env, strict=is_told) or (0, 1)
    shared = group is not None and own != (0, 1)
    _trackers += shared
    if is_told:
        keys = _told_keys(spool_dir, env, run, first=ranks[0] == 0)
    elif shared:
        keys = _keys_of_rank_0(group)
    elif ranks[1] > 1:
        which = f"rank {ranks[0]} of {ranks[1]}"
        raise ConfigError(RUN_SEED, f"not set, and this is {which}: {HAND_OVER}")
    else:
        keys = new_run_keys()
    if shared:
        _agree(group, keys.run)
    return Membership(keys, *ranks)


def _told_id(env: Mapping[str, str]) -> UUID | None:
    text = env.get(RUN_ID)
    try:
        return UUID(text) if text else None
    except ValueError as error:
        raise ConfigError(RUN_ID, f"found {text!r}, expected a UUID") from error


def _told_keys(
    spool_dir: Path, env: Mapping[str, str], run: UUID | None, *, first: bool
) -> RunKeys:
    """The keys of the run that the environment names; ``first``: this is rank 0."""
    seed, file = env.get(RUN_SEED), env.get(RUN_KEY_FILE)
    if seed:
        if run is None:
            raise ConfigError(RUN_ID, f"not set, and {RUN_SEED} is: the two belong together")
        return _keys(run, seed)
    if file:
        return _keys_in(Path(file), run, _wait_s(env), make=first and run is None)
    assert run is not None
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


def _keys_in(path: Path, run: UUID | None, wait_s: float, *, make: bool) -> RunKeys:
    deadline = time.monotonic() + wait_s
    while not make and not os.path.lexists(path):
        if time.monotonic() >= deadline:
            raise ConfigError(RUN_KEY_FILE, f"{path} is not there after {wait_s:g} s")
        time.sleep(0.05)
    try:
        if make:
            make_key_file(path, new_run_keys())
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
    rank, size = _pair(env, "PROVENANCE_RANK", "PROVENANCE_WORLD_SIZE")
    if size > 1 and "PROVENANCE_RANK" not in env:
        raise ConfigError("PROVENANCE_RANK", f"not set, and PROVENANCE_WORLD_SIZE is {size}")
    return rank, size


def launched_ranks(env: Mapping[str, str], *, strict: bool = False) -> tuple[int, int] | None:
    """Rank and world size as a launcher's variables tell them; None where they tell none.

    Args:
        strict: Refuse a RANK and WORLD_SIZE that cannot be; else they are passed over, since
            who gave them may have meant something else.

    Raises:
        ConfigError: A rank that cannot be, or one of several of which nothing tells which.
    """
    if strict and "RANK" in env:
        return _pair(env, "RANK", "WORLD_SIZE")
    # Inside srun, not in the batch script around it.
    srun = (("SLURM_PROCID", "SLURM_NTASKS"),) if "SLURM_STEP_ID" in env else ()
    for rank, size in _LAUNCHERS + srun:
        pair = _plausible(env, rank, size)
        if pair is not None:
            return pair
    pair = _plausible(env, "LOCAL_RANK", "WORLD_SIZE")  # Lightning tells no RANK
    node = env.get("NODE_RANK") or env.get("GROUP_RANK") or "0"
    if pair is not None and (pair[1] == 1 or node == "0"):
        return pair  # on the first node they are the same
    if (pair is not None or strict) and _number(env, "WORLD_SIZE", 1) > 1:
        raise ConfigError(
            "RANK",
            f"not set, and WORLD_SIZE is {env['WORLD_SIZE']}: make the tracker once the process "
            "group is up, or give each process PROVENANCE_RANK and PROVENANCE_WORLD_SIZE",
        )
    return None


def _plausible(env: Mapping[str, str], rank: str, size: str) -> tuple[int, int] | None:
    with suppress(ConfigError):
        return _pair(env, rank, size) if {rank, size} <= env.keys() else None
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


def _keys_of_rank_0(group: Any) -> RunKeys:
    """Rank 0's new keys, through the group's store: every rank's n-th tracker has the same."""
    name, store, wait_s = f"ml-provenance/run/{_trackers}", _store(group), _wait_s(os.environ)
    told = ""
    if group.get_rank() == 0:
        keys = new_run_keys()
        told = f"{keys.run} {keys.seed.hex()}"
    if store is None:  # a backend without one, MPI: a collective is the only way
        values = [told]
        group.broadcast_object_list(values, src=0)
        told = values[0]
    elif told:
        store.set(name, told)
    else:
        try:
            store.wait([name], timedelta(seconds=wait_s))
        except RuntimeError as error:
            problem = f"rank 0 made no tracker within {wait_s:g} s, so nobody has it"
            raise ConfigError(RUN_SEED, f"{problem}: {HAND_OVER}") from error
        told = bytes(store.get(name)).decode()
    run, seed = told.split()
    return _keys(UUID(run), seed)


def _agree(group: Any, run: UUID) -> None:
    """Refuse a rank whose run is not that of the group's first rank to come here."""
    store = _store(group)
    told = str(run).encode()
    if store is not None:
        told = bytes(store.compare_set(f"ml-provenance/agreed/{_trackers}", "", str(run)))
    if told.decode() != str(run):
        raise ConfigError(
            RUN_ID,
            f"this rank has run {run}, another one {told.decode()}: start `provenance run` once "
            "for all of them, or with --key-file on storage that all hosts share",
        )


def _store(group: Any) -> Any:
    """The group's key-value store (c10d); None where its backend has none."""
    return group.distributed_c10d._get_default_store()
