"""Which run this process writes, with which keys, and as which rank.

One run can be written by many processes, on one host or on many, that share its id and seed.
They come from, in this order:

1. ``PROVENANCE_RUN_ID`` and ``PROVENANCE_RUN_SEED`` (64 hex digits), as ``provenance run`` sets
   them; or ``PROVENANCE_RUN_KEY_FILE``, a file of mode 0600 on storage that all share, which
   rank 0 makes where there is none and the others wait for; or ``PROVENANCE_RUN_ID`` alone, where
   this host has its key. A process that has finished that run, which takes no more, is told
   nothing from then on: its next training is another run.
2. A store of keys and values that the ranks reach: of torchrun's agent, of a process group of
   ``torch.distributed`` that is up, or of ``jax.distributed``. Rank 0 makes id and seed and hands
   them over. No collective: whoever makes no tracker holds up nobody. Whoever reaches that store
   can read them, as they can the gradients. After an elastic restart it is a new run, whose
   parent is the one before.
3. Nobody: a new run of one process. Where a launcher started it beside others, each of them
   writes such a run, which states the launch, and one warning says how to share one.

Rank and world size come from ``PROVENANCE_RANK`` and ``PROVENANCE_WORLD_SIZE``, the process
group, or what launchers tell (:mod:`provenance.capture.ranks.launchers`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from provenance.capture import ending
from provenance.capture.emitter import Emitter
from provenance.capture.keys import (
    KEY_FILE,
    RunKeys,
    load_run_keys,
    make_key_file,
    new_run_keys,
    read_key_file,
)
from provenance.capture.ranks.launchers import (
    RANK,
    WORLD_SIZE,
    Launch,
    launch_id,
    launched,
    own_ranks,
)
from provenance.capture.ranks.stores import (
    Roster,
    Store,
    process_group,
    shared_store,
)
from provenance.errors import ConfigError, FormatError, ProvenanceError
from provenance.formats.producers.certificate import check_run_id
from provenance.log import get_logger

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
_log = get_logger("provenance")
_trackers = 0
_warned = False
_given: ContextVar[Membership | None] = ContextVar("given", default=None)


class Membership(NamedTuple):
    """A process's part in a run.

    Attributes:
        rank: From 0 to ``world_size`` - 1, of the run's ranks.
        launch: Where the run is of one of several processes that a launcher started, and the
            others write runs of their own: which of them this is.
        parent: The run that this one goes on from, after an elastic restart.
        roster: Which ranks take part, where they share a store.
    """

    keys: RunKeys
    rank: int = 0
    world_size: int = 1
    launch: Launch | None = None
    parent: UUID | None = None
    roster: Roster | None = None


def join_run(spool_dir: Path, told: Mapping[str, str] | None = None) -> Membership:
    """This process's part in the run that it is told of, or in a new one; the key of a run of
    this host lies in the spool. ``told``: instead of the environment.

    Raises:
        ConfigError: A variable that does not parse, an id of another seed, a rank that nothing
            tells of a run that is shared, or two ranks that were told two runs.
    """
    global _trackers
    handed = _given.get()
    if handed is not None:
        return handed
    env, group = os.environ if told is None else told, process_group()
    own, run = own_ranks(env), _told_id(env)
    is_told = run is not None or bool(env.get(RUN_SEED) or env.get(RUN_KEY_FILE))
    launch = _place(env, group, own, strict=is_told)
    if launch is None or launch.world_size == 1:
        ranks = (0, 1)
    elif launch.rank is None or launch.world_size is None:
        if is_told:
            raise ConfigError(*_unknown(launch))
        return _beside(launch)
    else:
        ranks = launch.rank, launch.world_size
    store = None if ranks == (0, 1) else shared_store(env, group, _wait_s(env))
    _trackers += store is not None
    keys: RunKeys | None = None
    if is_told:
        keys = _told_keys(spool_dir, env, run, first=ranks[0] == 0)
        if told is None and (keys.run, ranks[0]) in ending.finished_here:
            keys, is_told = None, False
    if keys is None and ranks == (0, 1):
        keys = new_run_keys()
    if store is None:
        return _beside(launch) if keys is None else Membership(keys, *ranks)
    parent = roster = None
    try:
        if keys is None:
            keys, parent = _shared_keys(store, env, first=ranks[0] == 0) or (None, None)
        if keys is not None:
            _agree(store, env, keys.run)
            roster = Roster(store, _name("here", _attempt(env)), *ranks)
            if not roster.join():
                keys = None
    except RuntimeError as error:  # as c10d and JAX say that the store is gone
        _log.warning("the store of the ranks fails", problem=str(error).split("\n")[0][:200])
        keys = keys if is_told else None
    if keys is None:
        return _beside(launch)
    return Membership(keys, *ranks, parent=parent, roster=roster)


def found_late(membership: Membership) -> Launch | None:
    """The launch of a run that was begun as one process's, where a process group of several has
    come up since, whose other ranks write runs of their own; else what was known at the start."""
    group, env = process_group(), os.environ
    if membership.launch or membership.world_size > 1 or group is None or own_ranks(env):
        return membership.launch
    if any(env.get(name) for name in (RUN_ID, RUN_SEED, RUN_KEY_FILE)):
        return None
    late = _place(env, group, None)
    _warn(late, "its tracker was made before the process group")
    return late


def end_absent_ranks(spool_dir: Path, part: Membership) -> None:
    """End the ranks that made no tracker, as in ``if rank == 0:``, so that nobody waits for them.

    Each gets a producer that states its end alone; rank 0 calls this at the run's end.
    """
    for rank in part.roster.absent() if part.roster is not None else ():
        emitter = Emitter(spool_dir, part.keys.run, rank, part.world_size, segment_bytes=4096)
        emitter.close("this rank made no tracker")


@contextmanager
def given(membership: Membership) -> Iterator[None]:
    """Trackers that this thread makes inside have this part."""
    before = _given.set(membership)
    try:
        yield
    finally:
        _given.reset(before)


def _place(
    env: Mapping[str, str], group: Any, own: tuple[int, int] | None, *, strict: bool = False
) -> Launch | None:
    """Rank and world size, by who knows best."""
    if own is not None:
        return Launch("PROVENANCE_WORLD_SIZE", *own, launch_id(env))
    if group is not None:
        names = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")
        ranks = int(group.get_rank()), int(group.get_world_size())
        return Launch("torch.distributed", *ranks, launch_id(env, names))
    return launched(env, strict=strict)


def _unknown(launch: Launch) -> tuple[str, str]:
    if launch.world_size is None:
        size = f"not set, and this is process {launch.rank} of a {launch.by} job: {HAND_OVER}"
        return WORLD_SIZE, f"{size}; its ranks need {RANK} and {WORLD_SIZE} too"
    return (
        "RANK",
        f"not set, and WORLD_SIZE is {launch.world_size}: make the tracker once the process "
        f"group is up, or give each process {RANK} and {WORLD_SIZE}",
    )


def _beside(launch: Launch | None) -> Membership:
    """A run of this process alone, beside those of the other ranks."""
    _warn(launch, "nothing hands one over")
    return Membership(new_run_keys(), launch=launch)


def _warn(launch: Launch | None, why: str) -> None:
    """Once a process."""
    global _warned
    if launch is not None and not _warned:
        _warned = True
        _log.warning(
            f"{launch} ({launch.by}) writes a run of its own, since {why}: to share one, "
            f"{HAND_OVER}",
            launch=(launch.id or "unknown")[:16],
        )


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
        problem = (
            f"not set, and this host has no key of run {run}: a run that is finished has none any "
            f"more, continue it with parent=; for one that goes on elsewhere, {HAND_OVER}"
        )
        raise ConfigError(RUN_SEED, problem)
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


def _wait_s(env: Mapping[str, str]) -> float:
    text = env.get(RUN_WAIT, "60")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise ConfigError(RUN_WAIT, f"found {text[:40]!r}, expected seconds from 0 to 86400")
    return seconds


def _name(what: str, attempt: int) -> str:
    """Every rank's n-th tracker has the same, anew after each restart."""
    return f"ml-provenance/{what}/{attempt}/{_trackers}"


def _attempt(env: Mapping[str, str]) -> int:
    text = env.get("TORCHELASTIC_RESTART_COUNT", "")
    return int(text) if text.isdecimal() and len(text) < 4 else 0


def _shared_keys(
    store: Store, env: Mapping[str, str], *, first: bool
) -> tuple[RunKeys, UUID | None] | None:
    """Rank 0's new keys and the run before a restart, through the store; None where rank 0 makes
    no tracker in time."""
    attempt = _attempt(env)
    name = _name("run", attempt)
    if first:
        keys = new_run_keys()
        parent = _run_before(store, attempt)
        said = store.offer(name, f"{keys.run} {keys.seed.hex()} {parent or ''}")
    else:
        said = store.wait_for(name, _wait_s(env)) or ""
    if not said:
        return None
    run, seed, before = said.split(" ")
    return _keys(UUID(run), seed), UUID(before) if before else None


def _run_before(store: Store, attempt: int) -> str | None:
    """The newest run of an attempt before this one."""
    for earlier in reversed(range(attempt)):
        said = store.wait_for(_name("run", earlier), 2.0)
        if said:
            return said.split(" ")[0]
    return None


def _agree(store: Store, env: Mapping[str, str], run: UUID) -> None:
    """Refuse a rank whose run is not that of the first rank to come here."""
    other = store.offer(_name("agreed", _attempt(env)), str(run))
    if other != str(run):
        raise ConfigError(
            RUN_ID,
            f"this rank has run {run}, another one {other}: start `provenance run` once "
            "for all of them, or with --key-file on storage that all hosts share",
        )
