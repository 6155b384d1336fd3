"""Where each record of a run stands: its path in the run tree, or why it has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress

from provenance.errors import InputError
from provenance.formats.record import Phase, Record
from provenance.formats.run_tree.proof import SINGLE_KINDS
from provenance.formats.run_tree.selection import (
    DigestedRecord,
    before_mark,
    checkpoints_upto,
    covered,
    run_leaves,
    run_tree,
    seal_marks,
)
from provenance.formats.run_tree.tree import MLProvenanceMerkleTree, RecordLeaf
from provenance.ports.values import LedgerEntry

SHORT_PRODUCER = 8


def tree_at(
    records: Collection[DigestedRecord], entries: Sequence[LedgerEntry], entry: LedgerEntry
) -> MLProvenanceMerkleTree:
    """The run tree at a seal, from records and what it and the checkpoints up to it cover.

    Raises:
        InputError: A record has no place in a tree (an epoch record without an epoch), or one
            that is covered is not here.
    """
    checkpoints = checkpoints_upto(entries, entry.index)
    return run_tree(records, entry.phase, checkpoints, dict(entry.coverage))


def coverage_problem(
    records: Collection[DigestedRecord], entries: Sequence[LedgerEntry], entry: LedgerEntry
) -> str | None:
    """How the coverage that a seal states differs from its one canonical form; None if it does
    not.

    At ``before`` the leader's events up to its mark, or fewer: what had not arrived, nobody can
    work out (:func:`uncovered_before`). At a checkpoint a number that leaves out or lets in a
    record gives another root: check (2) finds that. At ``after`` each producer's first events
    that are here without a hole.
    """
    stated = dict(entry.coverage)
    if entry.phase is Phase.BEFORE:
        wanted = {
            producer: min(count, stated[producer])
            for producer, count in _upto_mark(records).items()
            if stated.get(producer)
        }
    elif entry.phase is Phase.CHECKPOINT:
        wanted = covered(records, checkpoints_upto(entries, entry.index))
    else:
        wanted = without_hole(item.record for item in records)
    for producer in sorted(stated.keys() | wanted.keys()):
        if stated.get(producer) != wanted.get(producer):
            return (
                f"states to cover {stated.get(producer, 0)} events of producer {producer.hex()}, "
                f"the records give {wanted.get(producer, 0)}"
            )
    return None


def uncovered_before(records: Collection[DigestedRecord], entry: LedgerEntry) -> int:
    """How many of the leader's events up to its mark a ``before`` seal does not cover."""
    stated = dict(entry.coverage)
    return sum(count - stated.get(producer, 0) for producer, count in _upto_mark(records).items())


def without_hole(records: Iterable[Record]) -> dict[bytes, int]:
    """Per producer the number of its first events that are here, where it is not 0."""
    seqs: dict[bytes, set[int]] = {}
    for record in records:
        seqs.setdefault(record.producer, set()).add(record.seq)
    found = {
        producer: next(seq for seq in range(len(own) + 1) if seq not in own)
        for producer, own in seqs.items()
    }
    return {producer: count for producer, count in found.items() if count}


def _upto_mark(records: Collection[DigestedRecord]) -> dict[bytes, int]:
    """The leader's events up to its mark; empty without a leader."""
    leader = before_mark(seal_marks(item.record for item in records))
    return {} if leader is None else {leader.producer: leader.seq + 1}


def place_records(records: Sequence[DigestedRecord], entries: Sequence[LedgerEntry]) -> list[str]:
    """For each record its path in the tree at the newest seal; otherwise one below
    ``control/``, ``late/`` or ``unsealed/``."""
    leaves: list[RecordLeaf] = []
    late: list[DigestedRecord] = []
    if entries:
        last = entries[-1]
        # A record that fits no tree: whoever builds the tree says so.
        with suppress(InputError):
            leaves, _ = run_leaves(records, last.phase, checkpoints_upto(entries, last.index))
            _, late = run_leaves(records, Phase.AFTER, checkpoints_upto(entries))
    paths = {leaf.order: path for path, leaf in leaf_paths(leaves)}
    too_late = {item.record.order for item in late}
    name = _Namer([item.record for item in records])
    placed = []
    for item in records:
        record = item.record
        if record.order in paths:
            placed.append(paths[record.order])
        elif not record.kind.is_leaf:
            placed.append(f"control/{name(record)}")
        else:
            placed.append(f"{'late' if record.order in too_late else 'unsealed'}/{name(record)}")
    return placed


def leaf_paths(leaves: Collection[RecordLeaf]) -> list[tuple[str, RecordLeaf]]:
    """Each leaf with the path that :class:`MLProvenanceMerkleTree` gives it."""
    counts: Counter[str] = Counter()
    result = []
    for leaf in sorted(leaves, key=lambda leaf: leaf.sort_key):
        if leaf.kind in SINGLE_KINDS:
            slot = f"training/{leaf.kind}"
            path = f"{slot}/{counts[slot]}" if counts[slot] else slot
        else:
            dotted = leaf.kind.replace(".", "/")
            slot = dotted if "/" in dotted else f"training/epoch/{leaf.epoch}/{dotted}"
            path = f"{slot}/{counts[slot]}"
        counts[slot] += 1
        result.append((path, leaf))
    return result


class _Namer:
    """``<producer>-<seq>``, the producer cut to 8 digits where that tells all apart."""

    def __init__(self, records: Collection[Record]) -> None:
        producers = {record.producer.hex() for record in records}
        short = {producer[:SHORT_PRODUCER] for producer in producers}
        self.digits = SHORT_PRODUCER if len(short) == len(producers) else 32

    def __call__(self, record: Record) -> str:
        return f"{record.producer.hex()[: self.digits]}-{record.seq}"
