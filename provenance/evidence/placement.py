"""Where each record of a run stands: its path in the run tree, or why it has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.record import Record
from provenance.formats.run_tree.selection import DigestedRecord
from provenance.formats.run_tree.tree import SINGLE_KINDS, MLProvenanceMerkleTree, RecordLeaf
from provenance.formats.run_tree.walk import RunWalk
from provenance.ports.values import LedgerEntry

SHORT_PRODUCER = 8


def newest_tree(evidence: RunEvidence) -> MLProvenanceMerkleTree | None:
    """The run tree at the newest seal; None without a seal, or where none can be built."""
    if not evidence.entries:
        return None
    walk = RunWalk(evidence.run, evidence.digested, evidence.entries)
    if walk.leaves is None or walk.seals[-1].root is None:
        return None
    return MLProvenanceMerkleTree(walk.leaves, walk.seals[-1].producers)


def newest_leaves(
    records: Collection[DigestedRecord], entries: Sequence[LedgerEntry]
) -> tuple[list[RecordLeaf], list[DigestedRecord]]:
    """The leaves at the newest seal, and the records that are late; none where a record fits no
    tree: whoever builds the tree says so."""
    if not entries:
        return [], []
    walk = RunWalk(entries[-1].run, records, entries)
    return ([], []) if walk.leaves is None else (walk.leaves, walk.late)


def place_records(
    records: Sequence[DigestedRecord],
    leaves: Collection[RecordLeaf],
    late: Collection[DigestedRecord],
) -> list[str]:
    """For each record its path in the tree of these leaves; otherwise one below ``control/``,
    ``late/`` or ``unsealed/``."""
    paths = {leaf.order: path for path, leaf in leaf_paths(leaves)}
    too_late = {item.record.order for item in late}
    name = _Namer([item.record for item in records])
    placed = []
    for record in (item.record for item in records):
        path = paths.get(record.order)
        if path is None:
            folder = "late" if record.order in too_late else "unsealed"
            path = f"{folder if record.kind.is_leaf else 'control'}/{name(record)}"
        placed.append(path)
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
