"""Seal: the run root enters the ledger, the ledger gets a signed head, networks get work.

Life of a seal: a trainer's ``run.seal`` record asks for it; it is ready when every event
announced before it is in the database; the run tree is built, its root appended to the
ledger, the new head signed, and one DUE anchor per network added: all in the transaction
that made it ready, or in that of a later sweep.

A *before* seal needs the leader's events up to its mark. A *checkpoint* needs every rank's
mark and the events up to it. An *after* seal needs the events of every producer up to its
``run.end``, from every rank. Where something stays missing for ``grace_s`` since the run's
last new record, *before* and *after* are made without it and the run is marked incomplete
with what is missing; a checkpoint is left out. A rank that failed or was interrupted may come
again: *after* waits for it as for one without an end.

A run that stops before it is finished has no *after* seal. Each rank marks a checkpoint of its
newest epoch, without one of 0 (:mod:`provenance.tracker`). Where that cannot be made, or a rank
marked none, a checkpoint is made of all that is here once the run gave no sign of life for
``lost_after_s``.

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

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby
from uuid import UUID

from provenance.errors import IntegrityError
from provenance.formats.checkpoint import Head, sign_head
from provenance.formats.merkle import Frontier
from provenance.formats.note import SignerKey
from provenance.formats.producers.statement import statement_digest
from provenance.formats.record import EPOCH_KINDS, Kind, Phase, Record
from provenance.formats.run_tree.ranks import NAMED, named_ranks
from provenance.formats.run_tree.selection import (
    BEFORE_KINDS,
    FREE_KINDS,
    SealMark,
    absent_ranks,
    announced_ranks,
)
from provenance.formats.run_tree.tree import RecordLeaf
from provenance.formats.run_tree.walk import GrowingTree, epoch_entry, last_entries
from provenance.ledger.guard import LedgerGuard
from provenance.ledger.teams import NO_TEAMS, Teams
from provenance.log import get_logger
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import HeadRow, LedgerEntry, ProducerRow, TreeRow, Work

SEALS_AT_ONCE = 16
"""Of one transaction: while it appends them, all others that seal wait."""

_log = get_logger("provenance.ledger")


Enrolment = Callable[[bytes, UUID, bytes], str | None]
"""Asked with an identity's bytes, run and run's key: None where it is enrolled, else why not."""


@dataclass(frozen=True, slots=True)
class SealPolicy:
    """What a seal needs beyond the records.

    Attributes:
        networks: Where heads are anchored, in order.
        signer: Signs heads; its name is the ledger's origin.
        grace_s: Seconds without a new record before a seal is made with holes.
        lost_after_s: Seconds without a new record after which a run is lost.
        trainers: Who may stand behind a run; None takes runs of anybody.
        teams: What they may send.
        guard: Refuses to sign a second history; None where there is nothing to guard.
    """

    networks: tuple[str, ...]
    signer: SignerKey
    grace_s: float = 60.0
    lost_after_s: float = 21600.0
    trainers: Enrolment | None = None
    teams: Teams = NO_TEAMS
    guard: LedgerGuard | None = None

    def check(self, store: LedgerStore) -> None:
        """Before anything is sealed; raises as :meth:`LedgerGuard.check`."""
        if self.guard is not None:
            self.guard.check(store)

    def transaction(self, store: LedgerStore, run: UUID | None) -> AbstractContextManager[LedgerTx]:
        """One that may append to the ledger."""
        return self.guard.transaction(store, run) if self.guard else store.transaction(run)


def note_due(tx: LedgerTx, run: UUID, epochs: Iterable[int]) -> None:
    """Checkpoints of which a mark began to count are due where it was the last."""
    tree = tx.tree(run)
    ahead = [] if tree is None else [epoch for epoch in epochs if epoch > tree.closed]
    if tree is not None and ahead:
        tx.add_due(run, tree.world_size, ahead)


def seal_ready(
    tx: LedgerTx,
    run: UUID,
    policy: SealPolicy,
    now: float,
    until: float = math.inf,
    more: bool = False,
) -> list[LedgerEntry]:
    """Make every seal of the run that is asked for, not yet made, and ready.

    Args:
        until: On the monotonic clock: no further checkpoint is begun after it, nor after
            :data:`SEALS_AT_ONCE`. What is left is due, and is made by the next call.
        more: Entries of the run are in hand: its last seal would leave them out.
    """
    roots = _new_roots(tx, run, policy, now, until, more)
    # Last of all: from the first to the commit all other runs wait for the ledger.
    return [
        append_root(tx, run, phase, epoch, root, anchor, policy, now, coverage)
        for phase, epoch, root, anchor, coverage in roots
    ]


_Root = tuple[Phase, int | None, bytes, bool, Mapping[bytes, int]]
"""Of a seal: phase, epoch, root, whether it is anchored, what it covers."""


def _new_roots(
    tx: LedgerTx, run: UUID, policy: SealPolicy, now: float, until: float, more: bool
) -> list[_Root]:
    """As :func:`seal_ready`; the run's rows are written, the ledger's are not."""
    row, made = tx.run(run), list[_Root]()
    if row is None or row.state == "sealed":
        return made
    idle_s = now - (tx.last_ingest(run) or now)
    overdue = idle_s >= policy.grace_s
    tree = tx.tree(run) or _seal_before(tx, run, overdue, made)
    if tree is None:
        return made
    while (epoch := tx.next_due(run, tree.closed)) is not None:
        if len(made) >= SEALS_AT_ONCE or (made and time.monotonic() > until):
            return made
        tree = _seal_checkpoint(tx, tree, epoch, made)
    marks = tx.marks(run, Phase.AFTER)
    if marks and not more and (overdue or tx.ended_ranks(run, tree.world_size) >= tree.world_size):
        missing = _missing_ends(tx.producers(run), tree.world_size)
        if overdue or not missing:
            _seal_after(tx, tree, marks, made)
            tx.seal_run(run, now, "; ".join(missing) or None)
    elif not marks and not more and idle_s >= policy.lost_after_s:
        _seal_lost(tx, tree, made)
    return made


def waits_for(tx: LedgerTx, run: UUID) -> list[str]:
    """What stands between an open run and its next seals, from counters and marks alone; empty
    where it is sealed, or a worker has all that it needs."""
    row, tree = tx.run(run), tx.tree(run)
    if row is None or row.state == "sealed":
        return []
    held, producers = tx.held(run), tx.producers(run)
    size = tree.world_size if tree else 1 + max((each.rank for each in producers), default=0)
    lines = [] if held is None else [f"held back: {held.reason}"]
    lines += [] if tree or tx.marks(run, Phase.BEFORE) else ["no run.seal of before yet"]
    for each in producers:
        if each.contiguous < each.highest:
            lines.append(f"rank {each.rank} has a hole at event {each.contiguous}")
    here = {each.rank for each in producers if each.rank < size}
    unended = sorted(here - {each.rank for each in producers if each.ended is not None})
    if silent := named_ranks(*absent_ranks(size, here, NAMED)):
        lines.append(f"nothing came from {silent}" + (f" of {size}" if tree else ""))
    if unended:
        lines.append(f"no run.end yet from {named_ranks(unended)}")
    elif not silent and not tx.marks(run, Phase.AFTER):
        lines.append("no run.seal of after: the training ended without it")
    if tree is not None and tx.next_due(run, tree.closed) is None:
        for epoch in tx.marked_epochs(run, tree.closed)[:1]:
            marked = {mark.rank for mark in tx.marks(run, Phase.CHECKPOINT, epoch)}
            absent = absent_ranks(size, marked, NAMED)
            lines.append(f"marks of epoch {epoch} from {named_ranks(*absent)}")
    return lines


def log_left_out(tx: LedgerTx, tree: TreeRow | None, mark: SealMark) -> None:
    """Log a checkpoint that a new mark asks for too late.

    Each is logged once: at its first mark that comes behind a later checkpoint's seal, or at
    that seal (:func:`seal_ready`).
    """
    if tree is None or mark.epoch is None or mark.epoch >= tree.closed:
        return
    if not tx.is_marked(tree.run, mark.epoch) and not tx.is_sealed(
        tree.run, Phase.CHECKPOINT, mark.epoch
    ):
        _log_left_out(tree.run, [mark.epoch], "a later one is")


def _log_left_out(run: UUID, epochs: Iterable[int], why: str) -> None:
    for epoch in epochs:
        _log.warning(f"checkpoint not sealed: {why}", run=str(run), epoch=epoch)


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
    size = sign_grown(tx, entry.index, root, policy, now)
    if anchor and size is not None:
        for network in policy.networks:
            tx.add_anchor(network, size, now)
        if phase is Phase.AFTER and policy.networks:
            tx.add_work(Work.REPORT, run, now, index=entry.index)
    return entry


def sign_grown(tx: LedgerTx, index: int, root: bytes, policy: SealPolicy, now: float) -> int | None:
    """Sign the head of the ledger that an entry was appended to; its size, None where it has one
    already."""
    last = tx.head()
    frontier = Frontier.from_bytes(last.frontier) if last else Frontier.empty()
    if index < frontier.size:
        return None
    frontier = frontier.append(root)
    if policy.guard is not None:
        policy.guard.admit(tx)
    head = Head(policy.signer.name, frontier.size, frontier.root())
    row = HeadRow(head.size, head.root, sign_head(head, policy.signer), frontier.to_bytes(), now)
    tx.add_head(row)
    if policy.guard is not None:
        policy.guard.signed(row)
    return head.size


def _seal_before(tx: LedgerTx, run: UUID, overdue: bool, made: list[_Root]) -> TreeRow | None:
    """None where the seal is not asked for, or waits for events."""
    mark = next(iter(tx.marks(run, Phase.BEFORE)), None)
    if mark is None:
        return None
    leader = tx.producer(run, mark.producer)
    here = leader.contiguous if leader else 0
    if here < mark.seq and not overdue:
        return None
    leaves = tx.leaves(run, BEFORE_KINDS, producer=mark.producer, below_seq=mark.seq)
    kept = GrowingTree.start(list(leaves))
    tree = TreeRow(
        run=run,
        leader=mark.producer,
        leader_ts=mark.order[0],
        leader_seq=mark.seq,
        world_size=_world_size(tx, run, mark),
        data=kept.data,
        model=kept.model,
        training=kept.training.to_bytes(),
    )
    tx.save_tree(tree)
    upto = min(mark.seq + 1, here)
    coverage = {mark.producer: upto} if upto else {}
    made.append(_root(tx, tree, kept, coverage, mark))
    tx.add_due(run, tree.world_size)
    return tree


def _seal_lost(tx: LedgerTx, tree: TreeRow, made: list[_Root]) -> None:
    """A checkpoint of the newest epoch, of 0 where there are but steps, artifacts and notes, which
    no rank needs to have marked: a run that comes back goes on behind it."""
    newest = max((leaf.epoch or 0 for leaf in _unsealed(tx, tree)), default=None)
    if newest is None and tree.closed < 0 and any(True for _ in tx.leaves(tree.run, FREE_KINDS)):
        newest = 0
    if newest is not None:
        _seal_checkpoint(tx, tree, newest, made)


def _unsealed(tx: LedgerTx, tree: TreeRow, upto: int | None = None) -> Iterable[RecordLeaf]:
    return tx.leaves(tree.run, EPOCH_KINDS, above=tree.closed, upto=upto)


def _seal_checkpoint(tx: LedgerTx, tree: TreeRow, epoch: int, made: list[_Root]) -> TreeRow:
    marks = tx.marks(tree.run, Phase.CHECKPOINT, epoch)
    upto = {row.producer.hex(): row.contiguous for row in tx.producers(tree.run)}
    upto |= {mark.producer.hex(): mark.seq for mark in marks}
    coverage: dict[bytes, int] = {}

    def is_covered(leaf: RecordLeaf) -> bool:
        _, name, seq = leaf.order
        if seq >= upto.get(name, 0):
            return False
        producer = bytes.fromhex(name)
        coverage[producer] = max(seq + 1, coverage.get(producer, 0))
        return True

    kept = _kept(tree).extend(_epochs(filter(is_covered, _unsealed(tx, tree, epoch))))
    deque(filter(is_covered, tx.leaves(tree.run, FREE_KINDS)), maxlen=0)
    _log_left_out(tree.run, tx.marked_epochs(tree.run, tree.closed, epoch), "a later one is")
    mark = next(iter(marks), None) or _unmarked(tx, tree, epoch)
    made.append(_root(tx, tree, kept, coverage, mark))
    tree = replace(tree, training=kept.training.to_bytes(), closed=epoch)
    tx.save_tree(tree)
    tx.drop_due(tree.run, epoch)
    return tree


def _unmarked(tx: LedgerTx, tree: TreeRow, epoch: int) -> SealMark:
    """What stands for the mark of a checkpoint that nobody asked for: anchored as *before* is."""
    first = tx.marks(tree.run, Phase.BEFORE)[0]
    return replace(first, phase=Phase.CHECKPOINT, epoch=epoch)


def _seal_after(tx: LedgerTx, tree: TreeRow, marks: Sequence[SealMark], made: list[_Root]) -> None:
    run = tree.run
    enders = {tree.leader.hex(), *(mark.producer.hex() for mark in marks)}
    kept = _kept(tree).extend(_epochs(tx.leaves(run, EPOCH_KINDS, above=tree.closed)))
    last = tx.leaves(run, (Kind.RESULTS, *FREE_KINDS))
    counting = (leaf for leaf in last if leaf.kind != Kind.RESULTS or leaf.order[1] in enders)
    kept = kept.extend(last_entries(counting))
    coverage = {row.producer: row.contiguous for row in tx.producers(run) if row.contiguous}
    _log_left_out(run, tx.marked_epochs(run, tree.closed), "the run is sealed")
    made.append(_root(tx, tree, kept, coverage, marks[0]))
    tx.drop_due(run)


def _kept(tree: TreeRow) -> GrowingTree:
    return GrowingTree(tree.data, tree.model, Frontier.from_bytes(tree.training))


def _epochs(leaves: Iterable[RecordLeaf]) -> Iterable[bytes]:
    """The entries of ``training`` that leaves in order of their epochs make."""
    for _, own in groupby(leaves, key=lambda leaf: leaf.epoch):
        yield epoch_entry(own)


def _root(
    tx: LedgerTx, tree: TreeRow, kept: GrowingTree, coverage: Mapping[bytes, int], mark: SealMark
) -> _Root:
    """Over what is kept and what the seal covers."""
    run, signed = tree.run, list[bytes]()
    for producer, count in sorted(coverage.items()):
        chain = tx.chain_at(run, producer, count)
        if chain is None:
            raise IntegrityError(
                f"run {run}: producer {producer.hex()} has no chain of {count} events"
            )
        signed.append(statement_digest(run, producer, count, chain))
    tx.keep_statements(run)
    return mark.phase, mark.epoch, kept.root(signed), mark.anchor, coverage


def _world_size(tx: LedgerTx, run: UUID, mark: SealMark) -> int:
    """How many ranks the leader's configuration before its mark announces; 1 without one."""
    rows = tx.records(run, (Kind.CONFIG,))
    own = (row for row in rows if row.producer == mark.producer and row.seq < mark.seq)
    return announced_ranks([Record.decode(row.data) for row in own])


def _missing_ends(producers: Sequence[ProducerRow], size: int) -> list[str]:
    """What stands between the after mark and its seal; empty where it is ready."""
    missing = []
    for row in producers:
        if row.contiguous < max(row.highest, row.ended or 0):
            missing.append(f"rank {row.rank}: events from {row.contiguous} on are missing")
    present = {row.rank for row in producers if row.ended is not None and row.rank < size}
    absent, more = absent_ranks(size, present, NAMED)
    missing += [f"rank {rank}: no run.end" for rank in absent]
    return [*missing, f"{more} more ranks: no run.end"] if more else missing
