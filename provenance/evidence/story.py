"""How a run went: how it ended, where it was started again, which run it continues.

From the records alone. Times are the trainers' clocks, so the order of two processes is what their
hosts say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from provenance.formats.record import Kind, Phase, Record
from provenance.formats.run_tree.selection import (
    BEFORE_KINDS,
    Sealed,
    absent_ranks,
    announced_ranks,
    end_state,
    seal_marks,
)

LOST_AFTER_S: Final = 21600.0
AS_WEIGHTS: Final = "as initial weights those of epoch "
_FINAL: Final = ("finished", "pruned")
_WORDS: Final = {
    Kind.DATA_TRAIN: "training data",
    Kind.DATA_TEST: "test data",
    Kind.ARCHITECTURE: "architecture",
    Kind.WEIGHTS: "initial weights",
    Kind.CONFIG: "configuration",
}


class RunState(NamedTuple):
    """Where a run stands.

    Attributes:
        state: One of :data:`provenance.capture.ending.STATES`, ``running``, or ``lost``: no sign of
            life, and no end.
        reason: As the trainer gave it: an exception's type, a signal's name.
        rank: The one that decides, where there are several.
    """

    state: str
    reason: str | None = None
    rank: int | None = None

    @property
    def line(self) -> str:
        """For people."""
        rank = None if self.rank is None else f"rank {self.rank}"
        reason = None if self.reason == self.state else self.reason
        why = ", ".join(part for part in (rank, reason) if part)
        return f"{self.state} ({why})" if why else self.state


OPEN: Final = RunState("running")


class Process(NamedTuple):
    """One process of a rank: its records in order."""

    rank: int
    records: Sequence[Record]

    @property
    def epochs(self) -> set[int]:
        """Those it recorded metrics of."""
        own = (r.epoch for r in self.records if r.kind is Kind.METRICS)
        return {epoch for epoch in own if epoch is not None}


class Restart(NamedTuple):
    """A process that went on where an earlier one of its rank had stopped.

    Attributes:
        number: From 2.
        line: What it did, for people.
        producer: Its 16 bytes. before: Those of the rank's processes before it.
        repeats: ``seq`` of the records that say what an earlier process said, or are of an epoch
            that one had tracked.
    """

    rank: int
    number: int
    line: str
    producer: bytes
    before: frozenset[bytes]
    repeats: frozenset[int]


def state_of(
    records: Collection[Record], entries: Iterable[Sealed], now: float, lost_after_s: float
) -> RunState:
    """Where a run stands.

    Args:
        now: Unix time; lost is who gave no sign of life for ``lost_after_s`` before.
    """
    if not records:
        return OPEN
    ranks = announced_ranks(records)
    of_rank = {record.rank: list[Record]() for record in records if record.rank < ranks}
    for record in records:
        if record.rank in of_rank:
            of_rank[record.rank].append(record)
    ends = {rank: _end(own) for rank, own in of_rank.items()}
    absent, _ = absent_ranks(ranks, [rank for rank, end in ends.items() if end], 1)
    states = [RunState(*_told(end), rank) for rank, end in sorted(ends.items()) if end]
    sealed = [(entry.phase, entry.epoch) for entry in entries]
    asked = {(mark.phase, mark.epoch) for mark in seal_marks(records)}
    idle = now - max(_seconds(record.ts) for record in records) >= lost_after_s
    lost = (Phase.AFTER, None) in sealed or idle or bool(sealed and sealed[-1] not in asked)
    if absent:
        states.append(RunState("lost" if lost else "running", None, absent[0]))
    for word in ("failed", "interrupted", "running", "lost"):
        for state in states:
            if state.state == word:
                return state if ranks > 1 else state._replace(rank=None)
    return states[0]._replace(rank=None)


def _end(records: Sequence[Record]) -> Record | None:
    """The end that counts of a rank; None while a process of it goes on."""
    ends = [record for record in records if record.kind is Kind.RUN_END]
    final = max(ends, key=lambda end: (end_state(end) in _FINAL, end.order), default=None)
    if final is None or end_state(final) in _FINAL:
        return final
    ended = {end.producer for end in ends}
    goes_on = any(r.ts > final.ts and r.producer not in ended for r in records)
    return None if goes_on else final


def _told(end: Record) -> tuple[str, str | None]:
    reason = end.body.get("reason")
    return end_state(end), reason[:200] if isinstance(reason, str) else None


def _seconds(ts: str) -> float:
    try:
        return datetime.fromisoformat(ts).timestamp()
    except ValueError:  # a record that does not decode
        return 0.0


def processes(records: Iterable[Record]) -> dict[int, list[Process]]:
    """Of each rank the processes that followed one another, without those that ran beside one,
    as forked children do."""
    by_producer: dict[bytes, list[Record]] = {}
    for record in records:
        by_producer.setdefault(record.producer, []).append(record)
    found: dict[int, list[Process]] = {}
    upto: dict[int, str] = {}
    for own in sorted(by_producer.values(), key=lambda own: min(r.order for r in own)):
        own.sort(key=lambda record: record.seq)
        rank = own[0].rank
        if upto.get(rank, "") < min(record.ts for record in own):
            found.setdefault(rank, []).append(Process(rank, own))
        upto[rank] = max(upto.get(rank, ""), max(record.ts for record in own))
    return found


def restarts(records: Iterable[Record]) -> list[Restart]:
    """Where a run was started again, rank by rank."""
    return [
        _restart(rank, number, own[: number - 1], own[number - 1])
        for rank, own in sorted(processes(records).items())
        for number in range(2, len(own) + 1)
    ]


def _restart(rank: int, number: int, earlier: Sequence[Process], now: Process) -> Restart:
    known = set().union(*(process.epochs for process in earlier))
    twice = sorted(now.epochs & known)
    said = [record for process in earlier for record in process.records]
    stated = {(record.kind, record.epoch) for record in said if record.kind.is_epoch}
    repeats = {r.seq for r in now.records if (r.kind, r.epoch) in stated}
    differing = dict[str, None]()
    for record in now.records:
        if record.kind is Kind.SEAL and record.body.get("phase") == Phase.BEFORE:
            repeats.add(record.seq)
        if record.kind not in BEFORE_KINDS:
            continue
        problem = _differs(record, [other for other in said if other.kind is record.kind], said)
        if problem is not None:
            differing[problem] = None
        if problem is None or problem.startswith(AS_WEIGHTS):
            repeats.add(record.seq)
    first = min(now.epochs, default=None)
    parts = ["was started again" + (f" at epoch {first}" if first is not None else "")]
    if twice:
        parts.append(f"{_named(twice)} tracked twice")
    if any(record.kind in BEFORE_KINDS for record in now.records):
        parts.append(f"states {', '.join(differing)}" if differing else "states the same again")
    if not any(record.kind is Kind.RUN_END for record in earlier[-1].records):
        parts.append("the process before it ended unannounced")
    before = frozenset(record.producer for record in said)
    return Restart(
        rank, number, "; ".join(parts), now.records[0].producer, before, frozenset(repeats)
    )


def _differs(record: Record, same_kind: Sequence[Record], said: Sequence[Record]) -> str | None:
    """What sets it apart from all that was said of its kind; None where it repeats it."""
    if not same_kind:
        return f"{_WORDS[record.kind]} for the first time"
    if record.kind is Kind.CONFIG:
        keys = [_other_keys(record.body, other.body) for other in same_kind]
        fewest = min(keys, key=len, default=[])
        return f"another configuration ({', '.join(fewest)})" if fewest else None
    contents = [_content(other) for other in same_kind]
    if _content(record) in contents:
        return None
    word = _WORDS[record.kind]
    if record.kind is Kind.WEIGHTS:
        epoch = epoch_with(said, record.body.get("root"))
        if epoch is not None:
            return f"{AS_WEIGHTS}{epoch}"
    return f"another {word}"


def _content(record: Record) -> object:
    return record.body.get("root", record.body)


def _other_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The keys of two configurations that differ; a process that began with an epoch states no
    hyperparameters."""
    keys = []
    for key in sorted(one.keys() | other.keys()):
        mine, theirs = one.get(key), other.get(key)
        if key == "training" and isinstance(mine, dict) and isinstance(theirs, dict):
            if mine:
                keys += [k for k in sorted(mine.keys() | theirs) if mine.get(k) != theirs.get(k)]
        elif mine != theirs:
            keys.append(key)
    return keys


def epoch_with(records: Iterable[Record], root: object) -> int | None:
    """The newest epoch whose weights have that root; 0 for the weights before training."""
    if not isinstance(root, str):
        return None
    epochs = [
        record.epoch or 0
        for record in records
        if record.kind in (Kind.STATE, Kind.WEIGHTS) and record.body.get("root") == root
    ]
    return max(epochs, default=None)


def _named(epochs: Sequence[int]) -> str:
    if len(epochs) == 1:
        return f"epoch {epochs[0]} was"
    if epochs[-1] - epochs[0] == len(epochs) - 1 and len(epochs) > 2:
        return f"epochs {epochs[0]} to {epochs[-1]} were"
    shown = ", ".join(map(str, epochs[:-1][:20]))
    return f"epochs {shown} and {epochs[-1]} were"


class Lineage(NamedTuple):
    """The run that a run continues: its id, and what comes of holding the two together."""

    run: str
    epoch: int | None
    line: str


def lineage(records: Collection[Record], parent: Collection[Record] | None) -> Lineage | None:
    """What a run says that it continues; None where it says nothing.

    Args:
        parent: The records of the run that it names; None where they are not known here.
    """
    configs = [record for record in records if record.kind is Kind.CONFIG]
    named = [own for record in configs if isinstance(own := record.body.get("parent"), dict)]
    run = next((run for own in named if isinstance(run := own.get("run"), str)), None)
    if run is None:
        return None
    if parent is None:
        return Lineage(run, None, f"continues run {run}, which is not known here")
    roots = [r.body.get("root") for r in records if r.kind is Kind.WEIGHTS]
    if not roots:
        return Lineage(run, None, f"continues run {run}; its initial weights were not recorded")
    epoch = epoch_with(parent, roots[0])
    if epoch is None:
        return Lineage(
            run,
            None,
            f"says that it continues run {run}; its initial weights are of no epoch of that run",
        )
    return Lineage(run, epoch, f"continues run {run} from epoch {epoch}: initial weights match")


def parent_of(records: Iterable[Record]) -> str | None:
    """The id of the run that the records say they continue."""
    found = lineage([record for record in records if record.kind is Kind.CONFIG], None)
    return found.run if found else None
