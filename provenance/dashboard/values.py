"""What the pages and the API say, as values: times are Unix seconds, hashes hex."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

MAX_SEALS: Final = 50
"""Of a run, with their anchors: the first and the newest."""
MAX_WAITING: Final = 50
"""Anchors of a network."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is wrong, in one line."""

    error: str


@dataclass(frozen=True, slots=True)
class Run:
    """A run in the list.

    Attributes:
        state: How it ended, or ``running`` or ``lost``; ``ending`` says it with the reason.
        sealed: Whether it takes no more records.
        begun, seen: Its first and last event, by the producers' clocks.
        numbers: Of its results, or of the newest metrics.
        incomplete: What its seal does not cover of what was announced.
    """

    run_id: UUID
    name: str | None
    team: str | None
    group: str | None
    tags: list[str]
    state: str
    ending: str
    sealed: bool
    begun: float
    seen: float
    epoch: int | None
    step: int | None
    numbers: dict[str, Any]
    parent: str | None
    incomplete: str | None


@dataclass(frozen=True, slots=True)
class RunPage:
    """A page of runs; ``total`` counts those on all pages."""

    runs: list[Run]
    total: int
    page: int
    size: int


@dataclass(frozen=True, slots=True)
class Anchor:
    """A head on its way to a network.

    Attributes:
        size: Of the ledger, at the head.
        depth: Blocks on top, its own included, as the last look found it.
        paid: What its transaction cost, in wei or satoshi; None where that is not known.
        reason: Why it is not further.
    """

    network: str
    state: str
    size: int
    transaction_id: str | None
    height: int | None
    depth: int
    block_time: float | None
    paid: float | None
    reason: str | None
    attempts: int
    updated_at: float


@dataclass(frozen=True, slots=True)
class Seal:
    """An entry of the ledger: a run's root, and the anchors whose heads have it.

    Attributes:
        run_id, seal: None where who asks may not see the run.
    """

    index: int
    run_id: UUID | None
    seal: str | None
    root: str
    sealed_at: float
    anchors: list[Anchor]


@dataclass(frozen=True, slots=True)
class RunDetail:
    """A run.

    Attributes:
        identity: Who signed it: a key in hex, or an account; ``trainer`` is the name that it is
            pinned under. ``identity_problem``: why it does not hold.
        pinned: What this deployment's verdicts rest on.
        seals: At most `MAX_SEALS` of ``seals_total``, the first and the newest.
        ancestors: The runs that it says it continues, nearest first.
        archived: SHA-256, as hex, of the file in the archive that has its records.
        bundles: CIDs of its bundles on IPFS.
    """

    run: Run
    public_key: str
    identity: str | None
    identity_problem: str | None
    trainer: str | None
    pinned: list[str]
    created_at: float
    sealed_at: float | None
    archived: str | None
    waits_for: list[str]
    seals: list[Seal]
    seals_total: int
    ancestors: list[Run]
    bundles: list[str]


@dataclass(frozen=True, slots=True)
class Head:
    """The ledger at a size: its root, and the note (C2SP tlog-checkpoint) that signs it."""

    size: int
    root: str
    note: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Ledger:
    """A stretch of the ledger, newest entry first.

    Attributes:
        size: Of all its entries.
        refused: Why workers refuse to sign, as ``provenance ledger head`` says; None where it is
            one history, or where ``unchecked`` says why that is not known.
        next: Where the next older stretch ends; None at the first entry.
    """

    origin: str
    key: str | None
    size: int
    refused: str | None
    unchecked: str | None
    newest: Head | None
    entries: list[Seal]
    heads: list[Head]
    next: int | None


@dataclass(frozen=True, slots=True)
class NetworkView:
    """A network.

    Attributes:
        counts: Anchors by state.
        paused, problem: Why nothing is sent to it; why its newest anchor does not get on.
        final: The size of the newest head that is final there.
        waiting: Roots that are under no such head; ``waiting_s``: the oldest of them, for so long.
        eta_s: Until the newest anchor is final, by the pace of the blocks before.
        cost, cost_per_run: In ``unit``; None where that is not known.
        identity: Which chain its node serves, as it said when asked last.
        anchors: The newest one in a block, then those on their way, and what failed; at most
            `MAX_WAITING`.
    """

    network: str
    counts: dict[str, int]
    paused: str | None
    problem: str | None
    final: int
    waiting: int
    waiting_s: float | None
    eta_s: float | None
    cost: float | None
    cost_per_run: float | None
    unit: str | None
    identity: dict[str, Any]
    anchors: list[Anchor]


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue, and the seconds since a task of it ended."""

    name: str
    age_s: float | None
    stale: bool


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the fleet works, and what waits.

    Attributes:
        anchored: Whether everything is, in words; ``notes``: what else an operator should know.
        limit_s: A queue that is older is stale.
        spool_bytes: On this host, not confirmed by the database yet.
        stream_entries: In Redis; None where none is configured, or it cannot be asked.
        runs: How many are in each state.

    To who sees one team's runs alone ``runs`` counts those, and what is of the whole deployment is
    None, or empty.
    """

    healthy: bool
    anchored: str | None
    notes: list[str]
    queues: list[Queue]
    limit_s: float
    spool_bytes: int | None
    stream_entries: int | None
    parked: int | None
    equivocations: int | None
    runs: dict[str, int]
