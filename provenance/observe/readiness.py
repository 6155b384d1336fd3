"""Whether the deployment gets on with its work, by the age of what it did and of what waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

from provenance.app import health
from provenance.bootstrap import reading, sending
from provenance.errors import ConfigError, ProvenanceError
from provenance.settings import Settings

SWEEP = "sweep"
"""Who notes a commit at each of its turns."""


def problems(settings: Settings) -> list[str]:
    """Why work does not get on, one line each; empty where it does.

    Queues that no worker of this host ever served are left out: others may.
    """
    limit = health.limit_s(settings)
    served = [age for age in health.ages(settings) if age.age_s is not None]
    found = [str(age) for age in served if age.problem or age.stale(limit)]
    return found + of_servers(settings)


def of_servers(settings: Settings) -> list[str]:
    """The same of Redis and the database alone."""
    limit = health.limit_s(settings)
    return [*_of_redis(settings, limit), *_of_database(settings, limit)]


def _of_redis(settings: Settings, limit: float) -> Iterator[str]:
    if settings.redis_url is None:
        return
    try:
        with closing(reading.open_board(settings)) as board:
            board.ping()
            try:
                board.require_writes()
                waiting = board.waiting()
            except ConfigError:  # this user only looks
                return
    except ProvenanceError as error:
        yield str(error)
        return
    for shard, (entries, age_s) in enumerate(waiting):
        if age_s is not None and age_s > limit:
            yield f"shard {shard}: the oldest of {entries} batches waits for {age_s:.0f} s"


def _of_database(settings: Settings, limit: float) -> Iterator[str]:
    try:
        store = reading.open_store(settings)
        if store is None:
            return
        with closing(store), store.snapshot() as tx:
            committed = tx.commit_time(SWEEP)
        sending.require_commits(settings, "health")
    except ProvenanceError as error:
        yield str(error)
        return
    if committed is None:
        yield "no sweep has committed yet"
    elif (age_s := time.time() - committed) > limit:
        yield f"the last sweep committed {age_s:.0f} s ago"
