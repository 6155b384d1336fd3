"""Values of lists and counts, which an operator and a dashboard ask the ledger store for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final
from uuid import UUID

from provenance.formats.record import Json
from provenance.ports.values import AnchorRow

LABEL_CHARS: Final = 200
"""Of a name, team, group or tag that is kept, at most."""
MAX_HELD_RUNS: Final = 10_000
"""Of which it is known that they are held back; what more there are only come again."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run's records state, kept as they come so that a list reads no records: an index,
    and no evidence.

    Attributes:
        state, reason, rank: How it ended, as :func:`provenance.evidence.story.state_of` says.
        begun, seen: Unix seconds of its earliest and its latest event, by the producers' clocks.
        epoch: The newest that has metrics.
        step: The newest, where no epoch has metrics.
        parent: The run that it says it continues.
        numbers: Of the results (``has_results``), or of the newest metrics; a few.
        dropped: Events that its trainers say they had to drop.
        joined: The day (UTC, since 1970) on which its configuration came, which says its team.
        day, day_bytes: The day on which records came last, and their bytes on it; with those of
            days before it until the configuration comes.
    """

    run: UUID
    name: str | None = None
    team: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    state: str = "running"
    reason: str | None = None
    rank: int | None = None
    begun: float | None = None
    seen: float | None = None
    epoch: int | None = None
    step: int | None = None
    parent: str | None = None
    numbers: Mapping[str, Json] = field(default_factory=dict)
    has_results: bool = False
    dropped: int = 0
    joined: int | None = None
    day: int | None = None
    day_bytes: int = 0


@dataclass(frozen=True, slots=True)
class HeldRun:
    """A run whose batches do not come in for now: they are in its spool.

    Attributes:
        team: As its configuration names it; empty where that has not come.
        trainer: The name of who signed it, where a team has trainers.
        at: When a batch of it was held back last, Unix seconds.
    """

    run: UUID
    team: str | None
    trainer: str | None
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class TeamUse:
    """What came of a team on a day: runs that began, and bytes of records."""

    runs: int = 0
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs, in which order: what is None takes all, ``tags`` those with each of them.

    Attributes:
        now, lost_after_s: Running ones of which nothing came for so long before ``now`` (Unix
            seconds) are lost.
        among: Only those of this team, whatever else is asked: who asks may see no other.
        name: In the name or the id.
        since: Unix seconds: only those of which something came since then.
        network: Only those with a root that is not final there.
        sort: ``created`` and ``seen``: the newest first; ``name``, ``state``, ``team`` and
            ``group``: in the order of the alphabet, those without last.
    """

    now: float
    lost_after_s: float = inf
    among: str | None = None
    run: UUID | None = None
    state: str | None = None
    name: str | None = None
    team: str | None = None
    group: str | None = None
    tags: Collection[str] = ()
    since: float | None = None
    network: str | None = None
    sort: str = "created"
    page: int = 1
    size: int = 50


UNITS: Final = {"ethereum": "wei", "bitcoin": "satoshi"}
"""Of what is paid, and of balances."""


@dataclass(frozen=True, slots=True)
class NetworkTally:
    """How far a network has come with the ledger.

    Attributes:
        final: The size of the newest head that is final there; 0 without one.
        waiting, waiting_since: Roots that ask for an anchor and are under no final head; when the
            oldest of them was made, Unix seconds.
        newest: The anchor of the newest head that is on its way or there.
        problem: The reason of the newest anchor that does not get on; one that failed counts
            while no later head covers it.
        block_s: Seconds from block to block, between those of its latest anchors.
        paid: What all anchors cost, in wei or satoshi; None where none is known.
        runs: Runs with a root under a head that is in a block.
    """

    final: int
    waiting: int
    waiting_since: float | None
    newest: AnchorRow | None
    problem: str | None
    block_s: float | None
    paid: float | None
    runs: int

    @property
    def paid_per_run(self) -> float | None:
        """None where nothing is known to have been paid, or no run is there."""
        return self.paid / self.runs if self.paid is not None and self.runs else None
