"""Which records of a run are leaves of its tree when it is sealed.

FROZEN FORMAT. Pure: the answer depends on the records alone, never on their arrival, so
that a replay, a verifier and an auditor all build the same tree.

A *mark* is a ``run.seal`` record. The rules:

1. The before mark is the first ``run.seal`` record of phase ``before`` in
   ``(ts, producer, seq)`` order. Its producer *leads* the run.
2. ``data.*``, ``model.*`` and ``config`` records count where the leader wrote them with a
   ``seq`` below the before mark's. All others of these kinds are late.
3. Epoch records (``state``, ``metrics``, ``privacy``) count at ``after``. At a checkpoint of
   epoch ``e`` those count with an epoch up to ``e`` that their producer wrote before its own
   mark of that checkpoint.
4. Where a checkpoint of epoch ``e`` has been sealed, an epoch record up to ``e`` that its
   producer wrote behind its own mark is late for good: what was sealed stays a prefix.
5. ``results`` records count at ``after`` where the leader, or the producer of the after
   mark, wrote them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from provenance.core.merkle_tree import MLProvenanceMerkleTree, RecordLeaf
from provenance.core.records import Kind, Phase, Record

BEFORE_KINDS = frozenset(
    {Kind.DATA_TRAIN, Kind.DATA_TEST, Kind.ARCHITECTURE, Kind.WEIGHTS, Kind.CONFIG}
)


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


def seal_marks(records: Iterable[Record]) -> list[SealMark]:
    """All marks in ``(ts, producer, seq)`` order; malformed ones are left out."""
    marks = []
    for record in records:
        if record.kind is not Kind.SEAL:
            continue
        phase, epoch = record.body.get("phase"), record.body.get("epoch")
        if not isinstance(phase, str) or phase not in set(Phase):
            continue
        if isinstance(epoch, bool) or not isinstance(epoch, int | None):
            continue
        if epoch is None and phase == Phase.CHECKPOINT:
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


def before_mark(marks: Iterable[SealMark]) -> SealMark | None:
    """The mark whose producer leads the run (rule 1)."""
    return next((mark for mark in marks if mark.phase is Phase.BEFORE), None)


def run_leaves(
    records: Collection[DigestedRecord],
    phase: Phase,
    epoch: int | None = None,
    checkpoints: Collection[int] = (),
) -> tuple[list[RecordLeaf], list[DigestedRecord]]:
    """The leaves at a seal, and the leaf records left out because they are late.

    Args:
        records: All records of the run.
        phase: Which seal.
        epoch: The checkpoint's epoch; None otherwise.
        checkpoints: Epochs of the checkpoints sealed before this one.
    """
    marks = seal_marks(item.record for item in records)
    leader = before_mark(marks)
    enders = {mark.producer for mark in marks if mark.phase is Phase.AFTER}
    own = {
        (mark.producer, mark.epoch): mark.seq
        for mark in reversed(marks)
        if mark.phase is Phase.CHECKPOINT
    }
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
            sealed = [e for e in checkpoints if record.epoch is not None and record.epoch <= e]
            is_late = any(record.seq > own.get((record.producer, e), record.seq) for e in sealed)
            counts = not is_late and phase is Phase.AFTER
            if phase is Phase.CHECKPOINT and epoch is not None and not is_late:
                mark_seq = own.get((record.producer, epoch), record.seq + 1)
                counts = record.epoch is not None and (
                    record.epoch <= epoch and record.seq < mark_seq
                )
        if counts:
            leaves.append(
                RecordLeaf(
                    kind=record.kind.value,
                    epoch=record.epoch,
                    rank=record.rank,
                    order=record.order,
                    digest=item.digest,
                )
            )
        elif is_late:
            late.append(item)
    return leaves, late


def run_tree(
    records: Collection[DigestedRecord],
    phase: Phase,
    epoch: int | None = None,
    checkpoints: Collection[int] = (),
) -> MLProvenanceMerkleTree:
    """The run tree at a seal; arguments as :func:`run_leaves`."""
    return MLProvenanceMerkleTree(run_leaves(records, phase, epoch, checkpoints)[0])
