"""What is kept of the records, against them: marks, ends, checkpoints that are due, the tree, the
index of weights.

Each row is worked out from the run's records and entries. Ingest and seal move these rows in the
transactions that move records and entries, so that they agree at any moment.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

from msgspec.structs import asdict, replace

from provenance.formats.record import Kind, Phase, Record
from provenance.formats.run_tree.selection import (
    SealMark,
    announced_events,
    announced_ranks,
    before_mark,
    end_state,
    seal_marks,
    written_marks,
)
from provenance.formats.run_tree.walk import RunWalk
from provenance.fsck.findings import Finding, FindingKind
from provenance.fsck.rows import DueRow, MarkRow, ProducerRow, RunFacts, TreeRow, WeightsRow

_ROOT: Final = re.compile(r"mth-sha256:[0-9a-f]{64}")


def check_kept(facts: RunFacts, records: Collection[Record], walk: RunWalk) -> Iterator[Finding]:
    """Every kept row of the run is what its records give, and none is missing.

    Args:
        records: Those that decode.
    """
    if facts.row is None:
        return
    counting = {
        mark
        for mark in seal_marks(records)
        if mark.phase is Phase.CHECKPOINT and mark.seq < walk.without_hole.get(mark.producer, 0)
    }
    tree = _tree(facts, records, walk)
    yield from _differing(facts, "producers", facts.producers, _producers(facts, records, counting))
    yield from _differing(facts, "marks", facts.marks, _marks(records, counting))
    yield from _differing(facts, "run_trees", facts.trees, tree)
    yield from _differing(facts, "due_checkpoints", facts.due, _due(facts, counting, tree))
    yield from _differing(facts, "epoch_weights", facts.weights, _weights(records))


def _producers(
    facts: RunFacts, records: Iterable[Record], counting: Iterable[SealMark]
) -> list[ProducerRow]:
    ended: dict[bytes, int] = {}
    states: dict[bytes, str] = {}
    for record in sorted(records, key=lambda record: record.seq):
        if record.kind is Kind.RUN_END:
            events = announced_events(record)
            ended[record.producer] = max(ended.get(record.producer, 0), events)
            states.setdefault(record.producer, end_state(record))
    marked: dict[bytes, int] = {}
    for mark in counting:
        marked[mark.producer] = max(marked.get(mark.producer, -1), mark.epoch or 0)
    rows = ((row, row.producer) for row in facts.producers)
    return [
        replace(row, ended=ended.get(own), end_state=states.get(own), marked=marked.get(own, -1))
        for row, own in rows
    ]


def _marks(records: Iterable[Record], counting: Collection[SealMark]) -> list[MarkRow]:
    """Of two of one producer for one seal the lower ``seq`` stands."""
    first: dict[tuple[Phase, int | None, bytes], MarkRow] = {}
    for mark in sorted(written_marks(records), key=lambda mark: mark.seq):
        key = (mark.phase, mark.epoch, mark.producer)
        row = MarkRow(*key, mark.seq, mark.rank, mark.anchor, mark.order[0], mark in counting)
        first.setdefault(key, row)
    return list(first.values())


def _tree(facts: RunFacts, records: Collection[Record], walk: RunWalk) -> list[TreeRow]:
    """As the last seal but *after* leaves it."""
    leader = before_mark(seal_marks(records))
    seals = zip(facts.entries, walk.seals, strict=True)
    made = [each for each in seals if each[0].phase is not Phase.AFTER]
    if leader is None or not made:
        return []
    own = [r for r in records if r.producer == leader.producer and r.seq <= leader.seq]
    closed, kept = made[-1][0].epoch, made[-1][1].kept
    tops = (kept.data, kept.model, kept.training.to_bytes(), -1 if closed is None else closed)
    first = (leader.producer, leader.order[0], leader.seq, announced_ranks(own))
    return [TreeRow(*first, *tops)]


def _due(facts: RunFacts, counting: Iterable[SealMark], trees: Iterable[TreeRow]) -> list[DueRow]:
    """Of an open run: behind the last checkpoint, with a counting mark of each rank."""
    if any(entry.phase is Phase.AFTER for entry in facts.entries):
        return []
    ranks: dict[int, set[int]] = {}
    for mark in counting:
        ranks.setdefault(mark.epoch or 0, set()).add(mark.rank)
    return [
        DueRow(epoch)
        for tree in trees
        for epoch, own in ranks.items()
        if epoch > tree.closed and sum(rank < tree.world_size for rank in own) >= tree.world_size
    ]


def _weights(records: Iterable[Record]) -> set[WeightsRow]:
    """Of each epoch the roots that its ``state`` records have."""
    return {
        WeightsRow(record.epoch, bytes.fromhex(root[-64:]))
        for record in records
        if record.kind is Kind.STATE and record.epoch is not None
        if isinstance(root := record.body.get("root"), str) and _ROOT.fullmatch(root)
    }


def _differing(
    facts: RunFacts, table: str, stored: Iterable[Any], given: Iterable[Any]
) -> Iterator[Finding]:
    kept, asked = ({_key(row): row for row in rows} for rows in (stored, given))
    for key in sorted(kept.keys() | asked.keys()):
        mine, right = kept.get(key), asked.get(key)
        if mine is None or right is None:
            problem = "is missing" if mine is None else "is kept, and the records give no such row"
        else:
            problem = "; ".join(
                f"{name} is {_shown(value)}, the records give {_shown(getattr(right, name))}"
                for name, value in asdict(mine).items()
                if value != getattr(right, name)
            )
        if problem:
            yield FindingKind.KEPT_STATE(f"{facts.run}/{table}{key}", problem)


def _key(row: object) -> str:
    """The key's part beside the run."""
    parts = (getattr(row, name, None) for name in ("phase", "epoch", "producer", "root"))
    return "".join(f"/{_shown(part)}" for part in parts if part is not None)


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 32 else f"SHA-256 {hashlib.sha256(value).hexdigest()}"
    return str(value)[:80]
