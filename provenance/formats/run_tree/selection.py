"""Which records of a run are leaves of its tree when it is sealed.

docs/FORMAT.md, section 5.1, whose rules 1 to 6 are named here. The answer depends on the records
and on what the run's checkpoints state that they cover, never on arrival, so that a replay, a
verifier and an auditor all build the same tree.

A *mark* is a ``run.seal`` record that is well formed. Of two marks of one producer that ask for the
same seal the first counts; a checkpoint's counts only where its epoch is above those of all
checkpoint marks that its producer wrote before it. What a checkpoint *covers* of each producer had
to have arrived, which nobody can work out afterwards: so the seal states it (rule 4).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from provenance.formats.record import MAX_SAFE_INTEGER, Json, Kind, Phase, Record
from provenance.formats.run_tree.tree import RecordLeaf

BEFORE_KINDS = frozenset(
    {Kind.DATA_TRAIN, Kind.DATA_TEST, Kind.ARCHITECTURE, Kind.WEIGHTS, Kind.CONFIG}
)
FREE_KINDS = frozenset({Kind.STEPS, Kind.ARTIFACT, Kind.NOTE, Kind.SEED, Kind.HOST})
"""Kinds that belong to no epoch and count at ``after``, whoever wrote them."""
MAX_RANKS = 1_000_000
MAX_STATE = 40


@dataclass(frozen=True, slots=True)
class SealMark:
    """One ``run.seal`` record: who asked for which seal, at which position."""

    phase: Phase
    epoch: int | None
    rank: int
    producer: bytes
    seq: int
    anchor: bool
    order: tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class DigestedRecord:
    """A decoded record and the SHA-256 of its canonical bytes."""

    record: Record
    digest: bytes


class Sealed(Protocol):
    """A ledger entry, whoever read it."""

    @property
    def index(self) -> int:
        """Number of the entry in the ledger, from 0."""

    @property
    def phase(self) -> Phase:
        """Which seal it is."""

    @property
    def epoch(self) -> int | None:
        """The epoch of a checkpoint; None for others."""

    @property
    def coverage(self) -> tuple[tuple[bytes, int], ...]:
        """Producers, in order, each with a number of its first events, from 1."""


def seal_marks(records: Iterable[Record]) -> list[SealMark]:
    """The marks that count, in ``(ts, producer, seq)`` order."""
    seen: set[tuple[bytes, Phase]] = set()
    highest: dict[bytes, int] = {}
    counting = []
    for mark in sorted(written_marks(records), key=lambda mark: mark.seq):
        if mark.epoch is not None:
            counts = mark.epoch > highest.get(mark.producer, -1)
            highest[mark.producer] = max(mark.epoch, highest.get(mark.producer, -1))
        else:
            counts = (mark.producer, mark.phase) not in seen
            seen.add((mark.producer, mark.phase))
        if counts:
            counting.append(mark)
    return sorted(counting, key=lambda mark: mark.order)


def written_marks(records: Iterable[Record]) -> list[SealMark]:
    """All marks in ``(ts, producer, seq)`` order, those too that do not count."""
    marks = []
    for record in records:
        phase, epoch = record.body.get("phase"), record.body.get("epoch")
        if record.kind is not Kind.SEAL or not isinstance(phase, str) or phase not in set(Phase):
            continue
        if isinstance(epoch, bool) or not isinstance(epoch, int | None):
            continue
        if (epoch is not None) != (phase == Phase.CHECKPOINT):
            continue
        if not 0 <= (epoch or 0) <= MAX_SAFE_INTEGER:
            continue
        anchor = record.body.get("anchor") is True
        mark = SealMark(
            Phase(phase), epoch, record.rank, record.producer, record.seq, anchor, record.order
        )
        marks.append(mark)
    return sorted(marks, key=lambda mark: mark.order)


def named_networks(records: Iterable[Record]) -> set[str]:
    """The networks that the trainer's configuration named for its seals: any text."""
    bodies = [record.body.get("networks") for record in records if record.kind is Kind.SEAL]
    return {name for names in bodies if isinstance(names, list) for name in map(str, names)}


def before_mark(marks: Iterable[SealMark]) -> SealMark | None:
    """The mark whose producer leads the run (rule 1)."""
    return next((mark for mark in marks if mark.phase is Phase.BEFORE), None)


def announced_ranks(records: Collection[Record]) -> int:
    """The world size that the leader's config record states, of a run without a leader the first
    one; 1 where none does, or not from 1 to :data:`MAX_RANKS`."""
    size = _world_size(records)
    return size if type(size) is int and 0 < size <= MAX_RANKS else 1


def unannounced(records: Collection[Record]) -> str | None:
    """Why nothing says how many ranks there are; None where the configuration does."""
    size = _world_size(records)
    if size is None:
        return "no configuration says how many ranks there are"
    if type(size) is int and 0 < size <= MAX_RANKS:
        return None
    found = json.dumps(size)[:40]
    return f"the configuration states world_size {found}, expected 1 to {MAX_RANKS} ranks"


def _world_size(records: Collection[Record]) -> Json:
    leader = before_mark(written_marks(records))
    name = None if leader is None else leader.producer
    configs = [record for record in records if record.kind is Kind.CONFIG]
    first = min(configs, key=lambda r: (r.producer != name, r.order), default=None)
    return None if first is None else first.body.get("world_size")


def absent_ranks(ranks: int, here: Collection[int], most: int) -> tuple[list[int], int]:
    """The lowest ranks below ``ranks`` that are not in ``here``, at most ``most`` of them, and how
    many more there are; for the cost of those that are named and those that are here."""
    named = list(islice((rank for rank in range(ranks) if rank not in here), most))
    return named, ranks - len({rank for rank in here if 0 <= rank < ranks}) - len(named)


def leaf_of(item: DigestedRecord) -> RecordLeaf:
    """A record as a leaf; ``InputError`` where it has no place in a tree."""
    record = item.record
    return RecordLeaf(record.kind.value, record.epoch, record.rank, record.order, item.digest)


def fixed_leaves(
    records: Collection[DigestedRecord],
) -> tuple[list[RecordLeaf], list[DigestedRecord]]:
    """The leaves of a whole run that are no epoch's, and the records of their kinds that are late
    (rules 2, 5 and 6)."""
    marks = seal_marks(item.record for item in records)
    leader = before_mark(marks)
    enders = {mark.producer for mark in marks if mark.phase is Phase.AFTER}
    leaves: list[RecordLeaf] = []
    late: list[DigestedRecord] = []
    for item in records:
        record = item.record
        leads = leader is not None and record.producer == leader.producer
        if record.kind in BEFORE_KINDS:
            counts = leads and leader is not None and record.seq < leader.seq
        elif record.kind is Kind.RESULTS:
            counts = leads or record.producer in enders
        elif record.kind in FREE_KINDS:
            counts = True
        else:
            continue
        if counts:
            leaves.append(leaf_of(item))
        else:
            late.append(item)
    return leaves, late


def announced_events(end: Record) -> int:
    """How many events a ``run.end`` announces before itself; 0 where it states no number."""
    events = end.body.get("events")
    return min(events, MAX_SAFE_INTEGER) if isinstance(events, int) else 0


def end_state(end: Record) -> str:
    """How a ``run.end`` says that its process ended; ``finished`` where it says nothing."""
    state = end.body.get("state")
    return state[:MAX_STATE] if isinstance(state, str) and state else "finished"


def goes_on(state: str | None) -> bool:
    """Whether the rank of a process that ended so may come again, as after a crash."""
    return state in ("failed", "interrupted")


def misannounced(end: Record) -> bool:
    """Whether a ``run.end`` announces another number than its own, and so that no hole shows."""
    announced = end.body.get("events")
    if not isinstance(announced, int) or isinstance(announced, bool):
        return True
    return announced < end.seq or announced == end.seq + 1
