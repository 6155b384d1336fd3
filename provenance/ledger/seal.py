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
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from provenance.core.heads import Head, SignerKey, sign_head
from provenance.core.merkle import Frontier
from provenance.core.records import Kind, Phase, Record
from provenance.core.run_leaves import (
    DigestedRecord,
    SealMark,
    before_mark,
    run_tree,
    seal_marks,
)
from provenance.ports import HeadRow, LedgerEntry, LedgerTx

CONTROL = (Kind.SEAL, Kind.RUN_END, Kind.CONFIG)


@dataclass(frozen=True, slots=True)
class SealPolicy:
    """What a seal needs beyond the records.

    Attributes:
        networks: Where heads are anchored, in order.
        signer: Signs heads; its name is the ledger's origin.
        grace_s: Seconds without a new record before a seal is made with holes.
    """

    networks: tuple[str, ...]
    signer: SignerKey
    grace_s: float = 60.0


def seal_ready(tx: LedgerTx, run: UUID, policy: SealPolicy, now: float) -> list[LedgerEntry]:
    """Make every seal of the run that is asked for, not yet made, and ready."""
    row = tx.run(run)
    if row is None or row.state == "sealed":
        return []
    control = [Record.decode(stored.data) for stored in tx.records(run, CONTROL)]
    marks = seal_marks(control)
    wanted = _unmade(tx, run, marks)
    if not wanted:
        return []
    progress = _Progress(control, marks, tx.contiguous(run))
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
    return entries


def awaits_seal(tx: LedgerTx, run: UUID) -> bool:
    """Whether a seal of an open run is asked for and not made; only reads.

    A run that is still training has none most of the time, so a sweep that asks this first
    opens no write transaction for it.
    """
    row = tx.run(run)
    if row is None or row.state == "sealed":
        return False
    marks = seal_marks(Record.decode(stored.data) for stored in tx.records(run, (Kind.SEAL,)))
    return bool(_unmade(tx, run, marks))


def append_root(
    tx: LedgerTx,
    run: UUID,
    phase: Phase,
    epoch: int | None,
    root: bytes,
    anchor: bool,
    policy: SealPolicy,
    now: float,
) -> LedgerEntry:
    """Append a run root to the ledger, sign the head and make its anchors due."""
    entry = tx.append_entry(run, phase, epoch, root, anchor, now)
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


def digested(tx: LedgerTx, run: UUID) -> list[DigestedRecord]:
    """All records of a run, decoded, with their stored digests."""
    return [DigestedRecord(Record.decode(s.data), s.digest) for s in tx.records(run)]


def _seal(tx: LedgerTx, run: UUID, mark: SealMark, policy: SealPolicy, now: float) -> LedgerEntry:
    checkpoints = [e.epoch for e in tx.entries(run) if e.epoch is not None]
    tree = run_tree(digested(tx, run), mark.phase, mark.epoch, checkpoints)
    return append_root(tx, run, mark.phase, mark.epoch, tree.root, mark.anchor, policy, now)


def _unmade(tx: LedgerTx, run: UUID, marks: Sequence[SealMark]) -> list[SealMark]:
    """The marks whose seal is not in the ledger, in the order seals are made."""
    if not marks:
        return []
    done = {(entry.phase, entry.epoch) for entry in tx.entries(run)}
    return [m for m in _first_of_each(marks) if (m.phase, m.epoch) not in done]


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
        self.marks, self.contiguous = marks, contiguous
        self.leader = before_mark(marks)
        self.ends = {r.producer: r for r in control if r.kind is Kind.RUN_END}
        size = next((r.body.get("world_size") for r in control if r.kind is Kind.CONFIG), 1)
        self.ranks = range(size if isinstance(size, int) and 0 < size <= 1_000_000 else 1)

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
        held = self.contiguous.get(producer, (0, 0))[0]
        if held >= upto:
            return []
        return [f"producer {producer.hex()[:8]}: events from seq {held} are missing"]

    def _missing_marks(self, wanted: SealMark) -> list[str]:
        missing: list[str] = []
        for rank in self.ranks:
            own = [
                m
                for m in self.marks
                if (m.phase, m.epoch, m.rank) == (wanted.phase, wanted.epoch, rank)
            ]
            if not own:
                missing.append(f"rank {rank}: no checkpoint mark")
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
        ended = {record.rank for record in self.ends.values()}
        missing += [f"rank {rank}: no run.end" for rank in self.ranks if rank not in ended]
        return missing
