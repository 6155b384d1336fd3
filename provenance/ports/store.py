"""The ledger store: the system of record; everything happens inside its transactions.

Over 400 lines: one transaction's whole interface.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from math import inf
from typing import Protocol
from uuid import UUID

from provenance.formats.merkle import Subtree
from provenance.formats.record import Kind, Phase
from provenance.formats.run_tree.selection import SealMark
from provenance.formats.run_tree.tree import RecordLeaf
from provenance.ports.listing import HeldRun, NetworkTally, RunSummary, TeamUse, Wanted
from provenance.ports.values import (
    AnchorRow,
    AnchorState,
    ArchivedRun,
    DueWork,
    Equivocation,
    HeadRow,
    Inserted,
    LedgerEntry,
    NetworkRow,
    OutcomeRow,
    Parked,
    ProducerRow,
    ReceiptRow,
    RunRow,
    SignedVersion,
    StatementRow,
    StoredRecord,
    TreeRow,
    VersionRow,
    Work,
)


class LedgerTx(Protocol):
    """One transaction: all of it or nothing. Not valid after the ``with`` block."""

    def run(self, run: UUID) -> RunRow | None:
        """The run; None if unknown."""

    def runs(self) -> Sequence[RunRow]:
        """All runs, oldest first."""

    def add_run(
        self, run: UUID, public_key: bytes, now: float, identity: bytes | None = None
    ) -> RunRow:
        """Insert, or return the existing row: the first public key stands, and the first
        identity that is not None."""

    def seal_run(self, run: UUID, now: float, incomplete: str | None) -> None:
        """The run takes no more records, which its shippers are to be told; the first seal
        stands. Raises UnknownRunError."""

    def unannounced(self, limit: int) -> Sequence[UUID]:
        """Sealed runs whose shippers are to be told so."""

    def announced(self, runs: Iterable[UUID]) -> None:
        """Their shippers were told."""

    def insert_records(self, records: Sequence[StoredRecord], now: float) -> Sequence[Inserted]:
        """By key ``(run, producer, seq)``: one answer per record, in order; on CONFLICT the
        stored value stays. Raises InputError for a ``seq`` out of range."""

    def last_ingest(self, run: UUID) -> float | None:
        """When the newest record of the run was inserted; None without records."""

    def records(self, run: UUID, kinds: Iterable[Kind] | None = None) -> Sequence[StoredRecord]:
        """In ``(producer, seq)`` order; of an archived run from its file. Raises IntegrityError
        where that is missing, or not the one that was written."""

    def archived(self, run: UUID) -> ArchivedRun | None:
        """Where the run's records are; None while they are in the database."""

    def archived_runs(self) -> Sequence[ArchivedRun]:
        """All of them, by run."""

    def archive_run(self, row: ArchivedRun) -> None:
        """The row takes the place of the run's records."""

    def restore_run(self, run: UUID, now: float) -> int:
        """An archived run's records come back from its file; how many. Raises IntegrityError as
        :meth:`records`, and UnknownRunError where it is not archived."""

    def runs_of_weights(self, root: bytes, limit: int) -> Sequence[tuple[UUID, int]]:
        """Runs with a ``state`` record of this root of weights (32 bytes), each with the last epoch
        of one, by id: the oldest run first. An index tells, at a cost that does not grow with the
        number of runs; the records prove it."""

    def has_record(self, run: UUID, producer: bytes, seq: int) -> bool:
        """Whether anything stands at this place."""

    def digests_from(
        self, run: UUID, producer: bytes, seq: int
    ) -> Iterator[tuple[int, bytes, bytes | None]]:
        """``(seq, digest, chain)`` of a producer's records from ``seq`` on, in order."""

    def chain_at(self, run: UUID, producer: bytes, count: int) -> bytes | None:
        """The chain of a producer's first ``count`` records; None where they are not all here."""

    def set_chains(self, run: UUID, producer: bytes, chains: Sequence[tuple[int, bytes]]) -> None:
        """Write the chain up to each of these ``seq``."""

    def leaves(
        self,
        run: UUID,
        kinds: Iterable[Kind],
        *,
        above: int | None = None,
        upto: int | None = None,
        producer: bytes | None = None,
        below_seq: int | None = None,
    ) -> Iterator[RecordLeaf]:
        """Records as leaves, by epoch; within the epochs, of the producer and below the ``seq``
        that are given."""

    def producers(self, run: UUID) -> Sequence[ProducerRow]:
        """By producer."""

    def producer(self, run: UUID, producer: bytes) -> ProducerRow | None:
        """One of them; None if unknown."""

    def save_producer(self, row: ProducerRow) -> None:
        """Insert, or replace the row of that producer."""

    def add_statement(self, row: StatementRow) -> None:
        """Insert; idempotent by ``(run, producer, count)``, the first signature stands."""

    def ended_ranks(self, run: UUID, size: int) -> int:
        """How many of the ranks below ``size`` have a producer that ended, and not so that the
        rank may come again."""

    def statements(self, run: UUID) -> Sequence[StatementRow]:
        """By ``(producer, count)``."""

    def unkept_statements(self, run: UUID, producer: bytes) -> Sequence[StatementRow]:
        """Those that no seal kept yet, by count."""

    def keep_statements(self, run: UUID) -> None:
        """At a seal: the run's statements that are here are kept for good."""

    def drop_statements(self, run: UUID, producer: bytes, counts: Iterable[int]) -> None:
        """Forget a producer's statements over so many records, but for those that are kept."""

    def add_equivocation(self, equivocation: Equivocation) -> None:
        """Idempotent by ``(run, producer, seq, digest)``."""

    def equivocations(self, run: UUID | None = None) -> Sequence[Equivocation]:
        """By ``(run, producer, seq, digest)``; of all runs where None."""

    def park(self, parked: Parked) -> None:
        """Idempotent by id. There is a quota for each run and for all: beyond a run's one row
        counts what came of it, beyond the whole one row what came of any."""

    def forget_parked(self, run: UUID | None = None, ids: Iterable[str] | None = None) -> int:
        """Delete those of a run, or of these ids, or all; how many."""

    def parked(self, run: UUID | None = None) -> Sequence[Parked]:
        """Oldest first; of all runs where None."""

    def tree(self, run: UUID) -> TreeRow | None:
        """The run tree as it is kept; None before the *before* seal."""

    def save_tree(self, row: TreeRow) -> None:
        """Insert, or replace that of the run."""

    def add_marks(self, run: UUID, new: Iterable[SealMark]) -> None:
        """Of two of one producer for one seal the lower ``seq`` stands."""

    def marks(self, run: UUID, phase: Phase, epoch: int | None = None) -> Sequence[SealMark]:
        """Of one seal, in ``(ts, producer, seq)`` order; of a checkpoint those that count."""

    def is_marked(self, run: UUID, epoch: int) -> bool:
        """Whether anybody marked this checkpoint, counting or not."""

    def checkpoint_marks(
        self, run: UUID, producer: bytes, first: int, end: int
    ) -> Sequence[SealMark]:
        """A producer's from ``seq`` ``first`` to ``end`` (excluded), in order."""

    def count_marks(self, run: UUID, producer: bytes, epochs: Iterable[int]) -> None:
        """The producer's marks of these checkpoints count."""

    def marked_epochs(self, run: UUID, above: int, below: int | None = None) -> Sequence[int]:
        """The checkpoints between two epochs that anybody marked, in order."""

    def add_due(self, run: UUID, ranks: int, epochs: Iterable[int] | None = None) -> None:
        """Of these checkpoints (all where None) those are due that each rank below ``ranks`` has
        a counting mark of."""

    def next_due(self, run: UUID, above: int) -> int | None:
        """The lowest epoch above ``above`` whose checkpoint is due; None without one."""

    def drop_due(self, run: UUID, upto: int | None = None) -> None:
        """The checkpoints up to an epoch (all where None) are due no more."""

    def awaiting_seal(self, idle_since: float = -inf) -> Sequence[UUID]:
        """Open runs with a seal that is asked for and may be made, and those that nothing came of
        since then and that have epochs under no seal; oldest first."""

    def append_entry(
        self,
        run: UUID,
        phase: Phase,
        epoch: int | None,
        root: bytes,
        anchor: bool,
        now: float,
        coverage: Mapping[bytes, int] | None = None,
    ) -> LedgerEntry:
        """Next index; ``(run, phase, epoch)`` is unique: an existing entry is returned.

        Args:
            coverage: As in :class:`LedgerEntry`; InputError where a number of events is no
                whole number from 1, or a producer not 16 bytes."""

    def is_sealed(self, run: UUID, phase: Phase, epoch: int | None) -> bool:
        """Whether the ledger has this seal."""

    def ledger_size(self) -> int:
        """Entries."""

    def entries(
        self, run: UUID | None = None, first: int = 0, end: int | None = None
    ) -> Sequence[LedgerEntry]:
        """Seals by index, from ``first`` up to ``end``."""

    def roots(self, first: int, end: int) -> Sequence[bytes]:
        """All entries from ``first`` up to ``end``, 32 bytes each: seals and outcomes."""

    def append_outcome(self, run: UUID, number: int, document: bytes, now: float) -> int:
        """Append the SHA-256 of an outcome's record to the ledger, and keep the record; the index.

        ``(run, number)`` is unique: InputError where there is one."""

    def outcomes(
        self, run: UUID | None = None, first: int = 0, end: int | None = None
    ) -> Sequence[OutcomeRow]:
        """By index, from ``first`` up to ``end``."""

    def has_final(self, first: int, end: int) -> bool:
        """Whether a run's final root is among the entries from ``first`` up to ``end``."""

    def subtrees(self, wanted: Sequence[Subtree]) -> Sequence[bytes]:
        """Roots of complete subtrees of the ledger, 32 bytes each, in the order asked for, with
        one read or two: what :class:`provenance.formats.merkle.KeptTree` takes.

        They are kept as entries are appended, and are worth no more than the head they lead
        to. Raises IntegrityError where one is not there."""

    def entry_of_root(self, root: bytes) -> LedgerEntry | None:
        """The newest with that root; None if absent. Linear in the ledger."""

    def run_counts(self, team: str | None = None) -> tuple[int, int]:
        """All runs (of a team where one is named), and those that were sealed with all they
        announced."""

    def unfinished(
        self, limit: int, team: str | None = None
    ) -> Sequence[tuple[UUID, str, tuple[int, ...]]]:
        """The newest runs that were not, newest first: id, state, indexes of their entries."""

    def join(self, run: UUID, team: str | None, day: int) -> None:
        """A run is of that team, or of none, since that day (UTC, since 1970): once and for all."""

    def teams_of(self, of: Collection[UUID]) -> Mapping[UUID, str | None]:
        """Of each of these runs that joined one, or none, which."""

    def early_bytes(self, run: UUID) -> int:
        """Of the records of a run that has not joined."""

    def team_use(self, day: int, team: str | None = None) -> Mapping[str, TeamUse]:
        """What came on a day (UTC, since 1970) of each team, or of the one that is named."""

    def hold(self, row: HeldRun) -> bool:
        """Insert, or replace that of the run; False where there are so many that it is not kept."""

    def held(self, run: UUID) -> HeldRun | None:
        """Why a run is held back; None where it is not."""

    def held_runs(self, team: str | None, trainer: str | None, limit: int) -> Sequence[HeldRun]:
        """Those of a team (or of none) that a trainer (or nobody) signed, that wait longest."""

    def held_counts(self) -> Mapping[tuple[str | None, str | None], int]:
        """How many are held back, by team and trainer."""

    def release(self, rows: Iterable[HeldRun], now: float) -> None:
        """They are held back no more, but for those that were again since; their last sign of
        life is now."""

    def seals(self, of: Collection[UUID]) -> Mapping[UUID, Sequence[Phase]]:
        """Of each of these runs with an entry, the phases of its entries, by index."""

    def list_runs(self, wanted: Wanted) -> tuple[Sequence[tuple[RunRow, RunSummary]], int]:
        """A page of runs, and how many there are on all pages."""

    def run_states(self, wanted: Wanted) -> Mapping[str, int]:
        """How many runs are in each state that one is in, of all pages."""

    def tally(self, network: str) -> NetworkTally:
        """How far a network has come."""

    def totals(self, run: UUID | None = None) -> tuple[int, int, int]:
        """How many roots ask for an anchor, how many rows are parked, and how many equivocations
        there are; of all runs where None."""

    def add_head(self, head: HeadRow) -> None:
        """The first head at a size stands; EquivocationError for another root."""

    def head(self, size: int | None = None) -> HeadRow | None:
        """The head at ``size``; the largest where None."""

    def heads(self, first: int = 0, limit: int | None = None) -> Sequence[HeadRow]:
        """By size, from ``first`` on."""

    def cosigned_head(self) -> HeadRow | None:
        """The largest whose note has a line with the shape of a cosignature; None if absent."""

    def head_of_root(self, root: bytes) -> HeadRow | None:
        """The largest with that root; None if absent. Linear in the heads."""

    def extend_head_note(self, size: int, lines: str) -> HeadRow:
        """Put signature lines behind a head's note, which keeps all it has; the new row.

        Raises InputError where there is no such head."""

    def add_anchor(self, network: str, size: int, now: float) -> AnchorRow:
        """A DUE row; the existing one is returned for a known ``(network, size)``. Raises
        IntegrityError where the ledger has no head at ``size``."""

    def anchor(self, anchor_id: int) -> AnchorRow | None:
        """The anchor; None if unknown."""

    def anchors(
        self, network: str | None = None, states: Iterable[AnchorState] | None = None
    ) -> Sequence[AnchorRow]:
        """By ``(network, size)``."""

    def anchored_networks(self) -> Sequence[str]:
        """Each with at least one anchor, by name."""

    def reach(self, network: str, states: Iterable[AnchorState], below: int | None = None) -> int:
        """The largest size in one of these states, and smaller than ``below``; 0 if absent."""

    def covering(self, network: str, index: int) -> AnchorRow | None:
        """The anchor of the smallest head that covers an entry and was not REPLACED; one that
        FAILED only where there is no other; None if absent."""

    def coverings(
        self, network: str, indexes: Iterable[int]
    ) -> Mapping[int, tuple[AnchorRow, str | None]]:
        """:meth:`covering` of each of some entries that has one, and the id of the transaction
        that counts: its version's, or the newest's; one query."""

    def anchor_counts(self, network: str) -> Mapping[AnchorState, int]:
        """How many are in each state that one is in."""

    def claim(
        self,
        network: str,
        states: Iterable[AnchorState],
        owner: str,
        now: float,
        lease_s: float,
        limit: int,
    ) -> Sequence[AnchorRow]:
        """Lease rows that are due (``next_attempt_at <= now``) and not leased by another, those
        that have waited longest first; a lease of the same owner is renewed."""

    def due_networks(self, states: Iterable[AnchorState], now: float) -> frozenset[str]:
        """Networks with at least one row that :meth:`claim` would give."""

    def save_anchor(self, *rows: AnchorRow) -> None:
        """Write all mutable columns of each row. Raises IntegrityError where one is not there."""

    def add_version(self, anchor_id: int, version: SignedVersion, now: float) -> VersionRow:
        """Store signed bytes; ``(network, transaction_id)`` is unique, and so is
        ``(network, key, nonce)`` among different anchors. The existing row is returned where the
        same bytes were stored before.

        Raises:
            EquivocationError: The transaction id is known with other bytes or for another anchor,
                or another anchor holds the nonce.
            IntegrityError: There is no such anchor on that network."""

    def mark_sent(self, version_id: int, now: float) -> None:
        """A broadcast was accepted; the first time stands. IntegrityError if unknown."""

    def versions(self, anchor_id: int) -> Sequence[VersionRow]:
        """Oldest first."""

    def highest_nonce(self, network: str, key: str) -> int | None:
        """The highest nonce stored for a key, over all anchors."""

    def approval(self, anchor_id: int) -> bytes | None:
        """The statement that persons sign before an anchor, in an envelope with the signatures it
        has; None while nobody took it to sign."""

    def approval_below(self, network: str, size: int) -> tuple[AnchorRow, bytes] | None:
        """The anchor of the largest head below ``size`` that has an :meth:`approval`, and that."""

    def save_approval(self, anchor_id: int, envelope: bytes) -> None:
        """Insert, or replace that of the anchor."""

    def signing_request(self, network: str, root: bytes) -> bytes | None:
        """What the owners of a network's key sign for the head with that root, and who has
        (:mod:`provenance.proofs.multisig.request`); None while nobody asked."""

    def save_signing_request(self, network: str, root: bytes, document: bytes) -> None:
        """Insert, or replace that of the network and root."""

    def add_receipts(self, made: Sequence[ReceiptRow]) -> None:
        """Insert or replace by ``(index, anchor_id)``."""

    def delete_receipts(self, anchor_id: int) -> None:
        """All of an anchor: a reorg took the confirmation away."""

    def receipts(self, run: UUID) -> Sequence[ReceiptRow]:
        """Receipts of the run's ledger entries, by ``(index, network, anchor_id)``."""

    def receipt(self, anchor_id: int) -> tuple[int, str] | None:
        """How many receipts an anchor has, and the document of one; None if it has none."""

    def open_and_sealed(self) -> Mapping[str, int]:
        """How many runs are in each state that one is in."""

    def dropped(self) -> tuple[int, int]:
        """How many runs lost events, and how many events those are."""

    def parked_count(self) -> int:
        """How many are parked."""

    def oldest_anchors(self, network: str) -> Mapping[AnchorState, tuple[float, int, int]]:
        """Of each state that is not the end: since when its oldest anchor is in it, the most
        attempts, and the least depth."""

    def newest_seals(self, count: int) -> Sequence[tuple[float, str]]:
        """Of those of the newest entries that a trainer asked for: when the entry was made, and
        the ``ts`` of the last mark that it waited for."""

    def commit_time(self, writer: str) -> float | None:
        """When it wrote :meth:`note_commit` last; None where it never did."""

    def note_commit(self, writer: str, now: float) -> None:
        """One row for each writer, replaced."""

    def network(self, network: str) -> NetworkRow | None:
        """The identity and pause last saved; None before the first."""

    def save_network(self, row: NetworkRow) -> None:
        """Insert, or replace the row of that network."""

    def add_work_of_sealed(self, kind: Work, after_s: float, now: float) -> None:
        """Work of a kind, due ``after_s`` behind its seal, for each run whose time has come and
        that has none; to be archived are those alone that are not."""

    def add_work(
        self,
        kind: Work,
        run: UUID,
        at: float,
        *,
        told: str | None = None,
        index: int | None = None,
    ) -> None:
        """Work that is due from ``at`` on, and once entry ``index`` is final everywhere."""

    def due_work(self, kind: Work, now: float, horizon_s: float, size: int = 0) -> DueWork | None:
        """Of a kind, where it names an entry one in a ledger of ``size``, what was tried least,
        and of that has waited longest. Its time has come, or lies more than ``horizon_s`` ahead,
        of a clock that was set back. None without one."""

    def most_tried(self, kind: Work, run: UUID | None = None) -> DueWork | None:
        """Of a kind, and of one run where one is named, due or not, what was tried most; None
        without one."""

    def work_count(self, kind: Work) -> int:
        """How much there is of a kind, due or not."""

    def save_work(self, row: DueWork) -> None:
        """Write all but its kind, run and entry."""

    def drop_work(self, id: int) -> None:
        """It is done."""


class LedgerStore(Protocol):
    """The system of record (SQL). Raises StoreUnavailable where it cannot be reached."""

    def transaction(self, run: UUID | None = None) -> AbstractContextManager[LedgerTx]:
        """A write transaction.

        With ``run`` it writes rows of that run, serialised against its other transactions. From
        its first :meth:`LedgerTx.append_entry` or :meth:`LedgerTx.park` to its end, and without
        ``run`` from its beginning, it is serialised against all that write to the ledger and the
        outbox too: what can be done before is done before."""

    def snapshot(self) -> AbstractContextManager[LedgerTx]:
        """A read-only transaction that never waits for a writer."""

    def vacuum(self) -> int:
        """What deleted records took goes back to the file system; how many bytes. Writers wait
        meanwhile, and there must be room for a second copy."""

    def close(self) -> None:
        """Close idle connections."""
