"""All seals of a run in one walk: what the records give at each, for the cost of the records.

The rules are those of :mod:`.selection`, the roots those of
:class:`.tree.MLProvenanceMerkleTree` at every seal. Epochs enter one growing tree in order of
number, each at the first checkpoint that decides about it, and every seal's root is read from
that tree: a seal is a prefix of the next by construction, except where one goes back, which the
walk tells. Each producer's chain is walked once, past all counts that anybody states.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final
from uuid import UUID

from provenance.errors import InputError
from provenance.formats import merkle
from provenance.formats.merkle import Frontier
from provenance.formats.producers.statement import chain_on, chain_start, statement_digest
from provenance.formats.record import Phase
from provenance.formats.run_tree.selection import (
    FREE_KINDS,
    DigestedRecord,
    Sealed,
    before_mark,
    fixed_leaves,
    leaf_of,
    seal_marks,
)
from provenance.formats.run_tree.tree import EPOCH_CHILDREN, LAST_KINDS, SLOTS, RecordLeaf


@dataclass(frozen=True, slots=True)
class GrowingTree:
    """What is kept of a run tree between two seals: the roots of ``data`` and ``model``, which
    stand from the first seal on, and the entries of ``training`` so far."""

    data: bytes
    model: bytes
    training: Frontier

    @classmethod
    def start(cls, leaves: Iterable[RecordLeaf]) -> GrowingTree:
        """The tree at the *before* seal; leaves of epochs and last ones have no place in it."""
        by_kind = _by_kind(leaves)
        data, model = (
            merkle.root([merkle.root(_sorted(by_kind.get(f"{top}.{name}", ()))) for name in names])
            for top, names in SLOTS.items()
        )
        return cls(data, model, Frontier.empty()).add(by_kind.get("config", ()))

    def add(self, leaves: Iterable[RecordLeaf]) -> GrowingTree:
        """After config records, which stand directly under ``training``."""
        return self.extend(_sorted(leaves))

    def extend(self, entries: Iterable[bytes]) -> GrowingTree:
        """After more entries of ``training``, 32 bytes each: epochs by number."""
        return replace(self, training=self.training.extend(entries))

    def root(self, producers: Iterable[bytes]) -> bytes:
        """The run root, given each producer's statement digest in the order of their ids."""
        tops = [self.data, self.model, self.training.root()]
        return merkle.root([*tops, merkle.root(list(producers))])


def epoch_entry(leaves: Iterable[RecordLeaf]) -> bytes:
    """What one epoch's records, in any order, enter ``training`` as; 32 bytes."""
    by_kind = _by_kind(leaves)
    return merkle.root([merkle.root(_sorted(by_kind.get(kind, ()))) for kind in EPOCH_CHILDREN])


def last_entries(leaves: Iterable[RecordLeaf]) -> list[bytes]:
    """What closes ``training`` at *after*: results, steps, artifacts and notes, in any order."""
    by_kind = _by_kind(leaves)
    return [digest for kind in LAST_KINDS for digest in _sorted(by_kind.get(kind, ()))]


def _by_kind(leaves: Iterable[RecordLeaf]) -> dict[str, list[RecordLeaf]]:
    by_kind: dict[str, list[RecordLeaf]] = {}
    for leaf in leaves:
        by_kind.setdefault(leaf.kind, []).append(leaf)
    return by_kind


def _sorted(leaves: Iterable[RecordLeaf]) -> list[bytes]:
    """The digests of the records of one slot."""
    return [leaf.digest for leaf in sorted(leaves, key=lambda leaf: leaf.sort_key)]


@dataclass(frozen=True, slots=True)
class WalkedSeal:
    """What the records give at one seal.

    Attributes:
        root: The run root, 32 bytes; None where the tree cannot be built.
        problem: Why not.
        coverage: What the seal has to state to cover, being what it states or less.
        uncovered: At ``before``, the leader's events up to its mark that it leaves out.
        lost: Path of what was under the seal before it and is not under this one; None where
            that is a prefix of this.
        kept: The tree under it but for the producers.
        producers: Digest of the statement of each that is covered, in order.
    """

    root: bytes | None
    problem: str | None
    coverage: Mapping[bytes, int]
    uncovered: int
    lost: str | None
    kept: GrowingTree
    producers: tuple[bytes, ...]


class RunWalk:
    """The walk.

    Args:
        records: All of the run, in any order.
        entries: The run's, in the ledger's order.
        counts: Numbers of first records, by producer, whose chains are wanted beside those
            that the entries cover.

    Attributes:
        seals: One for each entry.
        leaves: Those at the newest entry; None where one has no place in a tree.
        late: Leaf records that are late, as far as the entries decide.
        chains: By producer and count, as far as there is no hole before.
        without_hole: Per producer the number of its first records that are here, from 1.
    """

    def __init__(
        self,
        run: UUID,
        records: Iterable[DigestedRecord],
        entries: Sequence[Sealed],
        counts: Mapping[bytes, Collection[int]] | None = None,
    ) -> None:
        self._run = run
        self._waiting: dict[int, list[DigestedRecord]] = defaultdict(list)
        self._unplaced: dict[Phase, str] = {}
        self._digests: dict[bytes, dict[int, bytes]] = defaultdict(dict)
        self._free: dict[bytes, list[int]] = defaultdict(list)
        others = []
        for item in records:
            record = item.record
            if record.kind in FREE_KINDS:
                self._free[record.producer].append(record.seq)
            self._digests[record.producer].setdefault(record.seq, item.digest)
            if not record.kind.is_epoch:
                others.append(item)
            elif record.epoch is not None and record.epoch >= 0:
                self._waiting[record.epoch].append(item)
            else:
                self._cannot_place(item)
        for own in self._free.values():
            own.sort()
        fixed, self.late = fixed_leaves(others)
        self._last = [leaf for leaf in fixed if leaf.kind in LAST_KINDS]
        self._first = [leaf for leaf in fixed if leaf.kind not in LAST_KINDS]
        leader = before_mark(seal_marks(item.record for item in others))
        self._upto_mark = {} if leader is None else {leader.producer: leader.seq + 1}
        wanted = {producer: set(own) for producer, own in (counts or {}).items()}
        for entry in entries:
            for producer, count in entry.coverage:
                wanted.setdefault(producer, set()).add(count)
        self.without_hole: Final[dict[bytes, int]] = {}
        self.chains: Final = {
            producer: self._chain(producer, own, wanted.get(producer, ()))
            for producer, own in self._digests.items()
        }
        tops = GrowingTree.start(self._first)
        self._tops = (tops.data, tops.model)
        config = (leaf for leaf in self._first if leaf.kind == "config")
        self._tree = merkle.MerkleTree(_sorted(config))
        self._config = self._tree.size
        self._ahead = sorted(self._waiting, reverse=True)  # epochs that nothing decided about
        self._epochs: list[int] = []  # those that are in the tree, in its order
        self._decided = 0  # how many of them by a checkpoint
        self._in_tree: list[list[RecordLeaf]] = []
        self._highest, self._size, self._ended = -1, 0, False
        self.seals: Final = tuple(map(self._seal, entries))
        self.leaves = self._leaves(entries[-1].phase) if entries else []

    def _cannot_place(self, item: DigestedRecord) -> None:
        try:
            leaf_of(item)
        except InputError as error:
            for phase in (Phase.AFTER,) if item.record.epoch is None else Phase:
                self._unplaced.setdefault(phase, str(error))

    def _chain(
        self, producer: bytes, own: Mapping[int, bytes], counts: Collection[int]
    ) -> dict[int, bytes]:
        hole = next(seq for seq in range(len(own) + 1) if seq not in own)
        if hole:
            self.without_hole[producer] = hole
        found, value, at = {}, chain_start(self._run, producer), 0
        for count in sorted(count for count in counts if 0 <= count <= hole):
            value, at = chain_on(value, map(own.__getitem__, range(at, count))), count
            found[count] = value
        return found

    def _seal(self, entry: Sealed) -> WalkedSeal:
        stated, coverage, uncovered = dict(entry.coverage), self.without_hole, 0
        problem, size = self._unplaced.get(entry.phase), self._config
        if entry.phase is Phase.BEFORE:
            upto = self._upto_mark
            coverage = {p: min(count, stated[p]) for p, count in upto.items() if stated.get(p)}
            uncovered = sum(count - stated.get(p, 0) for p, count in upto.items())
        elif entry.phase is Phase.CHECKPOINT:
            epoch = self._highest if entry.epoch is None else entry.epoch
            if self._ended and epoch > self._highest and len(self._epochs) > self._decided:
                problem = problem or "a checkpoint stands behind the after seal"
            coverage = self._decide(epoch, stated)
            size += bisect_right(self._epochs, epoch, hi=self._decided)
        else:
            self._end()
            size = self._tree.size
        lost, self._size = (self._path(size) if size < self._size else None), size
        producers = []
        for producer, count in sorted(stated.items()):
            value = self.chains.get(producer, {}).get(count) if count else None
            if value is None:
                event = self.without_hole.get(producer, 0) if count else 0
                missing = f"event {event} is covered and is not here"
                problem = problem or f"producer {producer.hex()}: {missing}"
            else:
                producers.append(statement_digest(self._run, producer, count, value))
        nodes = self._tree.read(merkle.complete_subtrees(0, size))
        kept = GrowingTree(*self._tops, Frontier(size, tuple(nodes)))
        root = kept.root(producers) if problem is None else None
        return WalkedSeal(root, problem, coverage, uncovered, lost, kept, tuple(producers))

    def _leaves(self, phase: Phase) -> list[RecordLeaf] | None:
        """Those at the last seal that was walked."""
        if phase in self._unplaced:
            return None
        leaves = list(chain(self._first, *self._in_tree[: self._size - self._config]))
        return leaves + self._last if phase is Phase.AFTER else leaves

    def _decide(self, upto: int, covered: Mapping[bytes, int]) -> dict[bytes, int]:
        """Take the epochs that a checkpoint decides about; what it has to state (rule 4)."""
        coverage: dict[bytes, int] = {}
        while not self._ended and self._ahead and self._ahead[-1] <= upto:
            leaves = []
            for item in self._waiting[self._ahead.pop()]:
                record = item.record
                if record.seq < covered.get(record.producer, 0):
                    leaves.append(leaf_of(item))
                    count = coverage.get(record.producer, 0)
                    coverage[record.producer] = max(record.seq + 1, count)
                else:
                    self.late.append(item)
            if leaves:
                self._grow(leaves)
                self._decided += 1
        for producer, own in self._free.items():
            at = bisect_left(own, covered.get(producer, 0))
            if at:
                coverage[producer] = max(own[at - 1] + 1, coverage.get(producer, 0))
        self._highest = max(upto, self._highest)
        return coverage

    def _end(self) -> None:
        """Take the rest, as the after seal does (rules 3 and 5)."""
        if not self._ended:
            for epoch in reversed(self._ahead):
                self._grow([leaf_of(item) for item in self._waiting[epoch]])
            self._tree.extend(last_entries(self._last))
        self._ended = True

    def _grow(self, leaves: list[RecordLeaf]) -> None:
        self._tree.extend([epoch_entry(leaves)])
        self._epochs.append(leaves[0].epoch or 0)
        self._in_tree.append(leaves)

    def _path(self, at: int) -> str:
        """The path of an entry of ``training``."""
        if at < self._config:
            return f"training/config/{at}" if at else "training/config"
        epochs = self._epochs[at - self._config :]
        return f"training/epoch/{epochs[0]}" if epochs else "training/results"
