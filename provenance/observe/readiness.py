"""Whether the deployment gets on with its work, by the age of what it did and of what waits."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress

from provenance.app import health
from provenance.bootstrap import guarding, reading, sending
from provenance.errors import ConfigError, ProvenanceError, TransportUnavailable
from provenance.ports.store import LedgerStore
from provenance.settings import Settings
from provenance.stores.redis_board import RedisBoard

SWEEP = "sweep"
"""Who notes a commit at each of its turns."""
NO_SWEEP = "no sweep has committed yet"
"""As for some seconds after the first start."""


def problems(settings: Settings) -> list[str]:
    """Why work does not get on, one line each; empty where it does.

    Queues that no worker of this host ever served are left out: others may.
    """
    limit = health.limit_s(settings)
    served = [age for age in health.ages(settings) if age.age_s is not None]
    found = [str(age) for age in served if age.problem or age.stale(limit)]
    return found + of_servers(settings) + of_networks(settings)


def of_servers(settings: Settings) -> list[str]:
    """The same of Redis and the database alone."""
    limit, found = health.limit_s(settings), list[str]()
    for look in (_of_redis, _of_database):
        try:
            found += look(settings, limit)
        except ProvenanceError as error:
            found.append(str(error))
    return found


def of_networks(settings: Settings) -> list[str]:
    """The same of the networks, as the database has it: none is asked here."""
    networks, limit = settings.blockchain.active, health.limit_s(settings)
    now, found = time.time(), list[str]()
    with suppress(ProvenanceError):  # of_servers tells it
        store = reading.open_store(settings) if networks else None
        if store is None:
            return []
        with closing(store), store.snapshot() as tx:
            for name in networks:
                known, tally = tx.network(name), tx.tally(name)
                problem = (known and known.paused) or tally.problem
                waits_s = now - (tally.waiting_since or now)
                if problem and waits_s > limit:
                    found.append(f"{name}: the oldest root waits for {waits_s:.0f} s: {problem}")
    return found


def require_redis(board: RedisBoard) -> None:
    """That Redis takes something, where this user may write.

    Raises:
        TransportUnavailable, ConfigError: It does not.
    """
    board.ping()
    with suppress(ConfigError):  # this user only looks
        board.require_writes()


def require_database(settings: Settings, store: LedgerStore | None) -> None:
    """That the database, opened for reading, takes something, where this user may write.

    Raises:
        ProvenanceError: It does not; or it lacks what the ledger's key signed.
    """
    if os.access(settings.key_file, os.R_OK) or not settings.key_file.exists():
        with suppress(TransportUnavailable):  # the other part tells it
            guarding.compare_history(settings, store)
    if store is not None:
        sending.require_commits(settings, "health")


def _of_redis(settings: Settings, limit: float) -> Iterator[str]:
    if settings.redis_url is None:
        return
    with closing(reading.open_board(settings)) as board:
        require_redis(board)
        with suppress(ConfigError):
            for shard, (entries, age_s) in enumerate(board.waiting()):
                if age_s is not None and age_s > limit:
                    yield f"shard {shard}: the oldest of {entries} batches waits for {age_s:.0f} s"


def _of_database(settings: Settings, limit: float) -> Iterator[str]:
    store = reading.open_store(settings)
    with closing(store) if store is not None else nullcontext():
        require_database(settings, store)
        if store is None:
            return
        with store.snapshot() as tx:
            committed = tx.commit_time(SWEEP)
    if committed is None:
        yield NO_SWEEP
    elif (age_s := time.time() - committed) > limit:
        yield f"the last sweep committed {age_s:.0f} s ago"
