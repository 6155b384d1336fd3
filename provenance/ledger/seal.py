"""Seal: the run root enters the ledger, the ledger gets a signed head, networks get work.

Life of a seal: a trainer's ``run.seal`` record asks for it; it is ready when every event
announced before it is in the database; the run tree is built, its root appended to the
ledger, the new head signed, and one DUE anchor per network added: all in the transaction
that made it ready, or in that of a later sweep.

A *before* seal needs the leader's events up to its mark. A *checkpoint* needs every rank's
mark and the events up to it. An *after* seal needs the events of every producer up to its
``run.end``, from every rank. Where something stays missing for ``grace_s`` since the run's
last new record, *before* and *after* are made without it and the run is marked incomplete
with what is missing; a checkpoint is left out.

Checkpoints go forward. Those that are ready at once are made by epoch; one whose epoch is at or
below that of one already made is never made, and the log says so once. So of the marks of epochs
3 and 5, where 3 still lacks a rank's mark when 5 is ready, 5 is made and 3 is not: what was
recorded up to epoch 3 is in 5 as far as 5 covers it. A rank that marks 5 before 3 has not
marked 3 (:func:`provenance.formats.run_tree.selection.seal_marks`), so that where each rank is one
producer the same checkpoints are made, with the same roots, whatever the arrival. Where a rank
is several, as after a restart, it depends on arrival which are made and what they cover: each
entry states it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

import structlog

from provenance.formats.checkpoint import Head, sign_head
from provenance.formats.frontier import Frontier
from provenance.formats.note import SignerKey
from provenance.formats.record import Kind, Phase, Record
from provenance.formats.run_tree.selection import (
    Checkpoint,
    DigestedRecord,
    SealMark,
    announced_ranks,
    before_mark,
    checkpoints_upto,
    coverage_at,
    run_tree,
    seal_marks,
    written_marks,
)
from provenance.ports.store import LedgerTx
from provenance.ports.values import HeadRow, LedgerEntry

CONTROL = (Kind.SEAL, Kind.RUN_END, Kind.CONFIG)

NAMED = 20
"""How many ranks that are missing are named; the others are counted."""

_log = structlog.get_logger("provenance.ledger")


Enrolment = Callable[[bytes, UUID, bytes], str | None]
"""Asked with an identity's bytes, run and run's key: None where it is enrolled, else why not."""


@dataclass(frozen=True, slots=True)
class SealPolicy:
    """What a seal needs beyond the records.

    Attributes:
        networks: Where heads are anchored, in order.
        signer: Signs heads; its name is the ledger's origin.
        grace_s: Seconds without a new record before a seal is made with holes.
        trainers: Who may stand behind a run; None takes runs of anybody.
    """

    networks: tuple[str, ...]
    signer: SignerKey
    grace_s: float = 60.0
    trainers: Enrolment | None = None


def seal_ready(tx: LedgerTx, run: UUID, policy: SealPolicy, now: float) -> list[LedgerEntry]:
    """Make every seal of the run that is asked for, not yet made, and ready."""
    row = tx.run(run)
    if row is None or row.state == "sealed":
        return []
    control = [Record.decode(stored.data) for stored in tx.records(run, CONTROL)]
    marks = seal_marks(control)
    sealed = tx.entries(run)
    wanted = _unmade(sealed, marks)
    if not wanted:
        return []
    made = _highest(sealed)
    progress = _Progress(control, marks, arrived(tx, run))
    overdue = now - (tx.last_ingest(run) or now) >= policy.grace_s
    entries = []
    for mark in wanted:
        missing = progress.missing(mark)
        if missing and (not overdue or mark.phase is Phase.CHECKPOINT):
            if mark.phase is Phase.BEFORE:
                break
            continue
        entries.append(_seal(tx, run, mark, policy, now))
        if mark.phase is Phase.AFTER:
            tx.seal_run(run, now, "; ".join(missing) or None)
        if mark.phase is not Phase.BEFORE:
            passed = [m.epoch for m in written_marks(control) if m.epoch is not None]
            upto = max([made, *passed]) + 1 if mark.epoch is None else mark.epoch
            _log_left_out(run, [epoch for epoch in passed if made < epoch < upto], mark)
            made = upto
    return entries


def log_left_out(tx: LedgerTx, run: UUID, new: Sequence[Record]) -> None:
    """Log the checkpoints that new records of an open run ask for too late.

    Each is logged once: at its first mark that comes behind a later checkpoint's seal, or at
    that seal (:func:`seal_ready`).
    """
    sealed = tx.entries(run)
    highest = _highest(sealed)
    asked = {m.epoch for m in written_marks(new) if m.epoch is not None and m.epoch < highest}
    asked -= {entry.epoch for entry in sealed}
    if not asked:
        return
    places = {(record.producer, record.seq) for record in new}
    stored = written_marks(Record.decode(row.data) for row in tx.records(run, (Kind.SEAL,)))
    known = {m.epoch for m in stored if (m.producer, m.seq) not in places}
    _log_left_out(run, [epoch for epoch in asked if epoch is not None and epoch not in known], None)


def _log_left_out(run: UUID, epochs: Sequence[int], by: SealMark | None) -> None:
    for epoch in sorted(set(epochs)):
        _log.warning(
            "checkpoint not sealed: the run is sealed"
            if by is not None and by.phase is Phase.AFTER
            else "checkpoint not sealed: a later one is",
            run=str(run),
            epoch=epoch,
        )


def awaits_seal(tx: LedgerTx, run: UUID) -> bool:
    """Whether a seal of an open run is asked for and not made; only reads.

    A run that is still training has none most of the time, so a sweep that asks this first
    opens no write transaction for it.
    """
    row = tx.run(run)
    if row is None or row.state == "sealed":
        return False
    marks = seal_marks(Record.decode(stored.data) for stored in tx.records(run, (Kind.SEAL,)))
    return bool(marks and _unmade(tx.entries(run), marks))


def append_root(
    tx: LedgerTx,
    run: UUID,
    phase: Phase,
    epoch: int | None,
    root: bytes,
    anchor: bool,
    policy: SealPolicy,
    now: float,
    coverage: Mapping[bytes, int] | None = None,
) -> LedgerEntry:
    """Append a run root to the ledger, sign the head and make its anchors due."""
    entry = tx.append_entry(run, phase, epoch, root, anchor, now, coverage)
    last = tx.head()
    frontier = Frontier.from_bytes(last.frontier) if last else Frontier.empty()
    if entry.index < frontier.size:
        return entry
    frontier = frontier.append(root)
    head = Head(policy.signer.name, frontier.size, frontier.root())
    tx.add_head(
        HeadRow(head.size, head.root, sign_head(head, policy.signer), frontier.to_bytes(), now)
    )
    if anchor:
        for network in policy.networks:
            tx.add_anchor(network, head.size, now)
    return entry


def arrived(tx: LedgerTx, run: UUID) -> dict[bytes, tuple[int, int]]:
    """Per producer ``(events from 0 without a hole, highest seq + 1)``."""
    return {row.producer: (row.contiguous, row.highest) for row in tx.producers(run)}


def digested(tx: LedgerTx, run: UUID) -> list[DigestedRecord]:
    """All records of a run, decoded, with their stored digests."""
    return [DigestedRecord(Record.decode(s.data), s.digest) for s in tx.records(run)]


def _seal(tx: LedgerTx, run: UUID, mark: SealMark, policy: SealPolicy, now: float) -> LedgerEntry:
    records, checkpoints = digested(tx, run), checkpoints_upto(tx.entries(run))
    coverage = {producer: count for producer, (count, _) in arrived(tx, run).items() if count}
    if mark.epoch is not None:
        coverage = coverage_at(records, mark.epoch, coverage, checkpoints)
        checkpoints.append(Checkpoint(mark.epoch, coverage))
    elif mark.phase is Phase.BEFORE:
        upto = min(mark.seq + 1, coverage.get(mark.producer, 0))
        coverage = {mark.producer: upto} if upto else {}
    root = run_tree(records, mark.phase, checkpoints, coverage).root
    tx.keep_statements(run)
    return append_root(tx, run, mark.phase, mark.epoch, root, mark.anchor, policy, now, coverage)


def _unmade(sealed: Sequence[LedgerEntry], marks: Sequence[SealMark]) -> list[SealMark]:
    """The marks whose seal can still come into the ledger, in the order seals are made."""
    done, highest = {entry.phase for entry in sealed}, _highest(sealed)
    return [
        mark
        for mark in _first_of_each(marks)
        if (mark.phase not in done if mark.epoch is None else mark.epoch > highest)
    ]


def _highest(entries: Sequence[LedgerEntry]) -> int:
    """The epoch of the last checkpoint; -1 without one."""
    return max((e.epoch for e in entries if e.epoch is not None), default=-1)


def _first_of_each(marks: Sequence[SealMark]) -> list[SealMark]:
    """One mark per seal, before first, checkpoints by epoch, after last."""
    first: dict[tuple[Phase, int | None], SealMark] = {}
    for mark in marks:
        first.setdefault((mark.phase, mark.epoch), mark)
    order = {Phase.BEFORE: 0, Phase.CHECKPOINT: 1, Phase.AFTER: 2}
    return sorted(first.values(), key=lambda m: (order[m.phase], m.epoch or 0))


class _Progress:
    """What has arrived, against what was announced."""

    def __init__(
        self,
        control: Sequence[Record],
        marks: Sequence[SealMark],
        contiguous: Mapping[bytes, tuple[int, int]],
    ) -> None:
        self.contiguous = contiguous
        self.marks: dict[tuple[Phase, int | None], list[SealMark]] = {}
        for mark in marks:
            self.marks.setdefault((mark.phase, mark.epoch), []).append(mark)
        self.leader = before_mark(marks)
        self.ends = {r.producer: r for r in control if r.kind is Kind.RUN_END}
        self.size = announced_ranks(control)

    def missing(self, mark: SealMark) -> list[str]:
        """What stands between the mark and its seal; empty where it is ready."""
        if mark.phase is Phase.BEFORE:
            return self._hole(mark.producer, mark.seq)
        if self.leader is None:
            return ["no before seal was asked for"]
        if mark.phase is Phase.CHECKPOINT:
            return self._missing_marks(mark)
        return self._missing_ends()

    def _hole(self, producer: bytes, upto: int) -> list[str]:
        arrived = self.contiguous.get(producer, (0, 0))[0]
        if arrived >= upto:
            return []
        return [f"producer {producer.hex()[:8]}: events from seq {arrived} are missing"]

    def _missing_marks(self, wanted: SealMark) -> list[str]:
        own = self.marks.get((wanted.phase, wanted.epoch), [])
        missing = self._absent({mark.rank for mark in own}, "no checkpoint mark")
        for mark in own:
            missing += self._hole(mark.producer, mark.seq)
        return missing

    def _missing_ends(self) -> list[str]:
        missing: list[str] = []
        for producer, (_, highest) in sorted(self.contiguous.items()):
            end = self.ends.get(producer)
            announced = end.body.get("events") if end is not None else None
            upto = announced if isinstance(announced, int) else highest
            missing += self._hole(producer, max(upto, highest))
        return missing + self._absent({record.rank for record in self.ends.values()}, "no run.end")

    def _absent(self, present: set[int], what: str) -> list[str]:
        """The ranks that are not there: the first of them by number, of the rest how many.

        Costs what the ranks cost that are there, however many are announced.
        """
        count = self.size - sum(rank < self.size for rank in present)
        first = islice(
            (rank for rank in range(self.size) if rank not in present), min(count, NAMED)
        )
        lines = [f"rank {rank}: {what}" for rank in first]
        return lines if count <= NAMED else [*lines, f"{count - NAMED} more ranks: {what}"]
