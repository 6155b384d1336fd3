"""Which records of a run are leaves of its tree when it is sealed.

FROZEN FORMAT. Pure: the answer depends on the records and on what the run's checkpoints state
that they cover, never on arrival, so that a replay, a verifier and an auditor all build the
same tree.

A *mark* is a ``run.seal`` record that is well formed: its phase is one of the three, its epoch
a whole number at a checkpoint and null elsewhere. Of two marks of one producer that ask for the
same seal the first counts, the one with the lower ``seq``. A checkpoint's mark counts only where
its epoch is above those of all checkpoint marks that its producer wrote before it: checkpoints
go forward. The rules:

1. The before mark is the first mark of phase ``before`` in ``(ts, producer, seq)`` order. Its
   producer *leads* the run.
2. ``data.*``, ``model.*`` and ``config`` records count where the leader wrote them with a
   ``seq`` below the before mark's. All others of these kinds are late.
3. Epoch records (``state``, ``metrics``, ``privacy``) count at ``after``, and at a checkpoint
   of epoch ``e`` those with an epoch up to ``e``, except where rule 4 says that they are late.
   What no checkpoint so far has decided about counts at ``after`` alone.
4. The first checkpoint in the ledger with an epoch at or above its own decides about an epoch
   record. Where the record's ``seq`` is below what that checkpoint states for its producer (its
   *coverage*; 0 where it states nothing) it counts there and ever after. Otherwise it is late
   for good, so that what was sealed stays a prefix.
5. ``results`` records count at ``after`` where the leader wrote them, or a producer that has a
   mark of phase ``after``. All others are late.

A checkpoint covers, of a producer that has a mark of it, the events before that mark, and of
any other its first events that had arrived without a hole. What had arrived is what nobody can
work out afterwards, so the seal states it: per producer one more than the ``seq`` of the last
epoch record that it decided for; no more than that, so that there is one way to say it. Anyone
can check it: with it the records give the anchored root.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol
from uuid import UUID

from provenance.errors import InputError
from provenance.formats.producers.statement import chain_on, chain_start, statement_digest
from provenance.formats.record import MAX_SAFE_INTEGER, Kind, Phase, Record
from provenance.formats.run_tree.tree import MLProvenanceMerkleTree, RecordLeaf

BEFORE_KINDS = frozenset(
    {Kind.DATA_TRAIN, Kind.DATA_TEST, Kind.ARCHITECTURE, Kind.WEIGHTS, Kind.CONFIG}
)
MAX_RANKS = 1_000_000


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


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A sealed checkpoint: its epoch, and how many of its first events per producer it covers."""

    epoch: int
    coverage: Mapping[bytes, int]


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


def checkpoints_upto(entries: Iterable[Sealed], index: int | None = None) -> list[Checkpoint]:
    """The checkpoints among a run's ledger entries up to ``index`` (all where None)."""
    return [
        Checkpoint(entry.epoch, dict(entry.coverage))
        for entry in sorted(entries, key=lambda entry: entry.index)
        if entry.phase is Phase.CHECKPOINT
        and entry.epoch is not None
        and (index is None or entry.index <= index)
    ]


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
        if record.kind is not Kind.SEAL:
            continue
        phase, epoch = record.body.get("phase"), record.body.get("epoch")
        if not isinstance(phase, str) or phase not in set(Phase):
            continue
        if not isinstance(epoch, int | None) or isinstance(epoch, bool):
            continue
        if (epoch is not None) != (phase == Phase.CHECKPOINT):
            continue
        if epoch is not None and not 0 <= epoch <= MAX_SAFE_INTEGER:
            continue
        marks.append(
            SealMark(
                phase=Phase(phase),
                epoch=epoch,
                rank=record.rank,
                producer=record.producer,
                seq=record.seq,
                anchor=record.body.get("anchor") is True,
                order=record.order,
            )
        )
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
    leader = before_mark(written_marks(records))
    name = None if leader is None else leader.producer
    configs = [record for record in records if record.kind is Kind.CONFIG]
    first = min(configs, key=lambda r: (r.producer != name, r.order), default=None)
    size = None if first is None else first.body.get("world_size")
    return size if isinstance(size, int) and 0 < size <= MAX_RANKS else 1


def absent_ranks(ranks: int, here: Collection[int], most: int) -> tuple[list[int], int]:
    """The lowest ranks below ``ranks`` that are not in ``here``, at most ``most`` of them, and how
    many more there are; for the cost of those that are named and those that are here."""
    named = list(islice((rank for rank in range(ranks) if rank not in here), most))
    return named, ranks - len({rank for rank in here if 0 <= rank < ranks}) - len(named)


def leaf_of(item: DigestedRecord) -> RecordLeaf:
    """A record as a leaf.

    Raises:
        InputError: It has no place in a tree.
    """
    record = item.record
    return RecordLeaf(record.kind.value, record.epoch, record.rank, record.order, item.digest)


def run_leaves(
    records: Collection[DigestedRecord], phase: Phase, checkpoints: Sequence[Checkpoint] = ()
) -> tuple[list[RecordLeaf], list[DigestedRecord]]:
    """The leaves at a seal, and the leaf records left out because they are late.

    Args:
        records: All records of the run.
        phase: Which seal.
        checkpoints: The run's checkpoints so far, in the ledger's order; at a checkpoint the
            last one is its own.
    """
    marks = seal_marks(item.record for item in records)
    leader = before_mark(marks)
    enders = {mark.producer for mark in marks if mark.phase is Phase.AFTER}
    decided = _Decisions(checkpoints)
    upto = checkpoints[-1].epoch if checkpoints and phase is Phase.CHECKPOINT else -1
    leaves: list[RecordLeaf] = []
    late: list[DigestedRecord] = []
    for item in records:
        record = item.record
        if not record.kind.is_leaf:
            continue
        if record.kind in BEFORE_KINDS:
            counts = leader is not None and (
                record.producer == leader.producer and record.seq < leader.seq
            )
            is_late = not counts
        elif record.kind is Kind.RESULTS:
            is_late = not (
                (leader is not None and record.producer == leader.producer)
                or record.producer in enders
            )
            counts = phase is Phase.AFTER and not is_late
        else:
            is_late = decided.about(record) is False
            counts = not is_late and (
                phase is Phase.AFTER or (record.epoch is not None and record.epoch <= upto)
            )
        if counts:
            leaves.append(leaf_of(item))
        elif is_late:
            late.append(item)
    return leaves, late


def run_tree(
    records: Collection[DigestedRecord],
    phase: Phase,
    checkpoints: Sequence[Checkpoint] = (),
    coverage: Mapping[bytes, int] | None = None,
) -> MLProvenanceMerkleTree:
    """The run tree at a seal; arguments as :func:`run_leaves`.

    Args:
        coverage: What the seal states to cover, producers each with a number of events.

    Raises:
        InputError: A record has no place in a tree, or one that is covered is not here.
    """
    leaves, _ = run_leaves(records, phase, checkpoints)
    return MLProvenanceMerkleTree(leaves, producer_digests(records, coverage or {}))


def producer_digests(
    records: Collection[DigestedRecord], coverage: Mapping[bytes, int]
) -> list[bytes]:
    """What stands for each producer under a run root: the digest of its statement, in order.

    Raises:
        InputError: A record that is covered is not here.
    """
    digests: dict[bytes, dict[int, bytes]] = {producer: {} for producer in coverage}
    runs: dict[bytes, UUID] = {}
    for item in records:
        record = item.record
        if record.seq < coverage.get(record.producer, 0):
            digests[record.producer][record.seq] = item.digest
            runs[record.producer] = record.run
    result = []
    for producer, count in sorted(coverage.items()):
        own = digests[producer]
        missing = next((seq for seq in range(count) if seq not in own), None)
        if missing is not None or not count:
            raise InputError(
                f"producer {producer.hex()}: event {missing or 0} is covered and is not here"
            )
        run = runs[producer]
        chain = chain_on(chain_start(run, producer), (own[seq] for seq in range(count)))
        result.append(statement_digest(run, producer, count, chain))
    return result


class _Decisions:
    """What checkpoints decided about epoch records (rule 4)."""

    def __init__(self, checkpoints: Iterable[Checkpoint]) -> None:
        self.deciding: list[Checkpoint] = []
        for checkpoint in checkpoints:
            if not self.deciding or checkpoint.epoch > self.deciding[-1].epoch:
                self.deciding.append(checkpoint)

    def about(self, record: Record) -> bool | None:
        """Whether the record is covered; None where none of them decides about it."""
        if record.epoch is None:
            return None
        at = bisect_left(self.deciding, record.epoch, key=lambda each: each.epoch)
        if at == len(self.deciding):
            return None
        return record.seq < self.deciding[at].coverage.get(record.producer, 0)


def announced_events(end: Record) -> int:
    """How many events a ``run.end`` announces before itself; 0 where it states no number."""
    events = end.body.get("events")
    return min(events, MAX_SAFE_INTEGER) if isinstance(events, int) else 0


def misannounced(end: Record) -> bool:
    """Whether a ``run.end`` announces another number than its own, and so that no hole shows."""
    announced = end.body.get("events")
    if not isinstance(announced, int) or isinstance(announced, bool):
        return True
    return announced < end.seq or announced == end.seq + 1
