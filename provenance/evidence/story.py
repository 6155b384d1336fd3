"""How a run went: how it ended, and where it was started again.

From the records alone. Times are the trainers' clocks, so the order of two processes is what their
hosts say.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, NamedTuple

from provenance.formats.record import END_STATES, Kind, Phase, Record, canonical_json
from provenance.formats.run_tree.selection import (
    BEFORE_KINDS,
    Sealed,
    absent_ranks,
    announced_ranks,
    end_state,
    seal_marks,
)

LOST_AFTER_S: Final = 21600.0
_AS_WEIGHTS: Final = "as initial weights those of epoch "
_CONFIGS: Final = 16
"""Configurations of a rank, the newest, that another one is compared with."""
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
        state: One of :data:`provenance.formats.record.END_STATES`, ``unknown``, ``running``, or
            ``lost``: no sign of life, and no end.
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
    """One process of a rank: its number among all of the rank by their clocks, from 1, and its
    records in order."""

    rank: int
    number: int
    records: Sequence[Record]


class Restart(NamedTuple):
    """A process that went on where an earlier one of its rank had stopped.

    Attributes:
        number: Among the processes of the rank, by their clocks, from 1.
        line: What it did, for people.
        producer, before: 16 bytes: its own, and that of the process before it.
        repeats: ``seq`` of the records that say what an earlier process said, or are of an epoch
            that one had tracked.
    """

    rank: int
    number: int
    line: str
    producer: bytes
    before: bytes
    repeats: frozenset[int]


def state_of(
    records: Collection[Record], entries: Iterable[Sealed], now: float, lost_after_s: float
) -> RunState:
    """Where a run stands; of ranks that failed the first one counts, by their clocks: the others
    may have failed of it.

    Args:
        now: Unix time; lost is who gave no sign of life for ``lost_after_s`` before.
    """
    if not records:
        return OPEN
    of_rank: dict[int, list[Record]] = {}
    for record in records:
        of_rank.setdefault(record.rank, []).append(record)
    ends = {rank: _end(own) for rank, own in sorted(of_rank.items())}
    in_order = sorted(filter(None, ends.values()), key=lambda end: end.order)
    states = [state_at(end, end.rank) for end in in_order]
    ranks = announced_ranks(records)
    absent, _ = absent_ranks(ranks, ends, 1)
    absent += [rank for rank, end in ends.items() if end is None]
    sealed = [(entry.phase, entry.epoch) for entry in entries]
    asked = {(mark.phase, mark.epoch) for mark in seal_marks(records)}
    idle = now - max(_seconds(record.ts) for record in records) >= lost_after_s
    lost = (Phase.AFTER, None) in sealed or idle or bool(sealed and sealed[-1] not in asked)
    if absent:
        states.append(RunState("lost" if lost else "running", None, min(absent)))
    for word in ("failed", "interrupted", "unknown", "running", "lost"):
        for state in states:
            if state.state == word:
                return state if max(ranks, len(ends)) > 1 else state._replace(rank=None)
    return min(states, key=lambda state: state.rank or 0)._replace(rank=None)


def _end(records: Iterable[Record]) -> Record | None:
    """The end that counts of a rank; None while it goes on.

    The newest word counts of the processes that began behind the last finished (or pruned) end;
    without one, that end. Not heard is who came to a training that was there: a process that
    closed and asked for no checkpoint, such as an evaluation, and a child (:func:`_is_own`).
    """
    processes = [own for own in _by_producer(records) if _is_own(own)]
    ends = [end for own in processes if (end := _end_of(own)) and end_state(end) in _FINAL]
    final = max(ends, key=lambda end: end.order, default=None)
    if final is not None:
        processes = [own for own in processes if _first(own) > final.order]
    closed, silent = None, False
    for own in sorted(processes, key=lambda own: max(r.order for r in own), reverse=True):
        end = _end_of(own)
        trained = any(mark.epoch is not None for mark in seal_marks(own))
        if end is None and _begins(own):
            return None
        if end is None:
            silent = True
        elif end_state(end) == "closed" and not trained:
            closed = closed or end
        else:
            return None if silent else end
    return final or (None if silent else closed)


def _end_of(own: Iterable[Record]) -> Record | None:
    return next((record for record in own if record.kind is Kind.RUN_END), None)


def _is_own(own: Sequence[Record]) -> bool:
    """Whether a process has a tracker of its own, as far as that can be told: on rank 0 such a one
    begins, or has nothing to say but its end. Of other ranks nothing tells it from a child."""
    return own[0].rank > 0 or _begins(own) or (own[0].kind is Kind.RUN_END and own[0].seq == 0)


def _begins(own: Iterable[Record]) -> bool:
    """Whether a process states what belongs before training or asks for a seal, as no child of
    ``fork`` does."""
    return any(record.kind in BEFORE_KINDS or record.kind is Kind.SEAL for record in own)


def state_at(end: Record, rank: int | None = None) -> RunState:
    """What a ``run.end`` says; a word that no format has reads ``unknown``, lest it be taken for a
    verdict."""
    state, reason = end_state(end), end.body.get("reason")
    if state not in END_STATES:
        return RunState("unknown", repr(state), rank)
    return RunState(state, reason[:200] if isinstance(reason, str) else None, rank)


def _seconds(ts: str) -> float:
    try:
        return datetime.fromisoformat(ts).timestamp()
    except ValueError:  # a record that does not decode
        return 0.0


def _first(records: Iterable[Record]) -> tuple[str, str, int]:
    return min(record.order for record in records)


def _by_producer(records: Iterable[Record]) -> list[list[Record]]:
    """The records of each process, by ``seq``; the one that began first comes first."""
    found: dict[bytes, list[Record]] = {}
    for record in records:
        found.setdefault(record.producer, []).append(record)
    for own in found.values():
        own.sort(key=lambda record: record.seq)
    return sorted(found.values(), key=_first)


def process_names(records: Iterable[Record]) -> dict[bytes, str]:
    """Each producer by its rank where that is one of its own, else with its number, too."""
    of_rank: dict[int, dict[bytes, None]] = {}
    for record in sorted(records, key=lambda record: record.order):
        of_rank.setdefault(record.rank, {})[record.producer] = None
    return {
        producer: f"rank {rank}" if len(own) == 1 else f"rank {rank}, process {number}"
        for rank, own in of_rank.items()
        for number, producer in enumerate(own, 1)
    }


def processes(records: Iterable[Record]) -> dict[int, list[Process]]:
    """Of each rank the processes that followed one another, without those that ran beside one,
    as forked children do.

    A process follows where it began behind the last word of those before it. Clocks may be wrong:
    one that tracked epochs meanwhile follows, too, by the first of them.
    """
    found: dict[int, list[Process]] = {}
    upto: dict[int, str] = {}
    since: dict[int, int] = {}
    numbers = Counter[int]()
    for own in _by_producer(records):
        rank = own[0].rank
        numbers[rank] += 1
        if not _is_own(own):
            continue
        line, process = found.setdefault(rank, []), Process(rank, numbers[rank], own)
        if upto.get(rank, "") < min(record.ts for record in own):
            since[rank] = len(line)
            line.append(process)
        elif _tracked(process):
            insort(line, process, since.get(rank, 0), key=_first_epoch)
        upto[rank] = max(upto.get(rank, ""), max(record.ts for record in own))
    return found


def restarts(records: Iterable[Record]) -> list[Restart]:
    """Where a run was started again, rank by rank."""
    found = []
    for _, line in sorted(processes(records).items()):
        said = _Said()
        for before, now in pairwise(line):
            said.add(before)
            if _tracked(before) or not _overlap(before, now):
                found.append(_restart(said, before, now))
    return found


class _Said:
    """What the processes of a rank stated so far: grows by each, and is asked by the next."""

    def __init__(self) -> None:
        self.tracked = set[int]()
        """Epochs with metrics."""
        self.stated = set[tuple[Kind, int | None]]()
        self.contents: dict[Kind, set[bytes]] = {}
        self.configs: deque[Mapping[str, Any]] = deque(maxlen=_CONFIGS)
        self.weights: dict[object, int] = {}
        """Newest epoch by the root of its weights."""

    def add(self, process: Process) -> None:
        """One more."""
        self.tracked |= _tracked(process)
        for record in process.records:
            if record.kind.is_epoch:
                self.stated.add((record.kind, record.epoch))
            root = record.body.get("root")
            if record.kind is Kind.STATE and isinstance(root, str):
                self.weights[root] = max(record.epoch or 0, self.weights.get(root, 0))
            if record.kind in BEFORE_KINDS:
                known, content = self.contents.setdefault(record.kind, set()), _content(record)
                if record.kind is Kind.CONFIG and content not in known:
                    self.configs.append(record.body)
                known.add(content)

    def difference(self, record: Record) -> str | None:
        """What sets a record from before training apart from all of its kind; None where it repeats
        one."""
        known = self.contents.get(record.kind)
        if known is None:
            return f"{_WORDS[record.kind]} for the first time"
        if _content(record) in known:
            return None
        if record.kind is Kind.CONFIG:
            keys = [_other_keys(record.body, other) for other in self.configs]
            fewest = min(keys, key=len, default=[])
            return f"another configuration ({', '.join(fewest)})" if fewest else None
        root = record.body.get("root")
        if record.kind is Kind.WEIGHTS and isinstance(root, str) and root in self.weights:
            return f"{_AS_WEIGHTS}{self.weights[root]}"
        other = "other" if record.kind is Kind.WEIGHTS else "another"
        return f"{other} {_WORDS[record.kind]}"


def _tracked(process: Process) -> set[int]:
    own = (r.epoch for r in process.records if r.kind is Kind.METRICS)
    return {epoch for epoch in own if epoch is not None}


def _first_epoch(process: Process) -> int:
    return min(_tracked(process), default=-1)


def _overlap(before: Process, now: Process) -> bool:
    """Whether a process began, by its clock, before the last word of the one before it."""
    return min(r.ts for r in now.records) <= max(r.ts for r in before.records)


def _restart(said: _Said, before: Process, now: Process) -> Restart:
    tracked = _tracked(now)
    twice = sorted(tracked & said.tracked)
    repeats = {r.seq for r in now.records if r.kind.is_epoch and (r.kind, r.epoch) in said.stated}
    differing = dict[str, None]()
    for record in now.records:
        if record.kind is Kind.SEAL and record.body.get("phase") == Phase.BEFORE:
            repeats.add(record.seq)
        if record.kind not in BEFORE_KINDS:
            continue
        difference = said.difference(record)
        if difference is not None:
            differing[difference] = None
        if difference is None or difference.startswith(_AS_WEIGHTS):
            repeats.add(record.seq)
    first = min(tracked, default=None)
    parts = ["was started again" + (f" at epoch {first}" if first is not None else "")]
    overlap = _overlap(before, now)
    if overlap:
        parts.append(
            "its times are not behind those of the process before it: "
            "a clock is wrong, or both ran at once"
        )
    if twice:
        parts.append(f"{_named(twice)} tracked twice")
    if any(record.kind in BEFORE_KINDS for record in now.records):
        parts.append(f"states {', '.join(differing)}" if differing else "states the same again")
    end = _end_of(before.records)
    if end is None:
        says_no = "has no end" if overlap else "ended unannounced"
        parts.append(f"the process before it {says_no}")
    elif end_state(end) != "closed":
        parts.append(f"the process before it: {state_at(end).line}")
    return Restart(
        now.rank,
        now.number,
        "; ".join(parts),
        now.records[0].producer,
        before.records[0].producer,
        frozenset(repeats),
    )


def _content(record: Record) -> bytes:
    return canonical_json(record.body.get("root", record.body))


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


def _named(epochs: Sequence[int]) -> str:
    if len(epochs) == 1:
        return f"epoch {epochs[0]} was"
    if epochs[-1] - epochs[0] == len(epochs) - 1 and len(epochs) > 2:
        return f"epochs {epochs[0]} to {epochs[-1]} were"
    shown = ", ".join(map(str, epochs[:-1][:20]))
    return f"epochs {shown} and {epochs[-1]} were"
