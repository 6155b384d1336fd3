"""Ingest: signed batches from the stream become records in the database.

Life of a batch: it is read, written (:mod:`provenance.ledger.batch_writer`), seals that have become
possible are made, the transaction commits, and only then is the entry acknowledged, under the
ledger's signature. A crash anywhere repeats the whole; repeating changes nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from uuid import UUID

from provenance import tracing
from provenance.errors import (
    FormatError,
    InputError,
    IntegrityError,
    ProvenanceError,
    TransportUnavailable,
)
from provenance.formats.producers.acknowledgement import (
    GATE,
    NOBODY,
    sign_acknowledgement,
    sign_gate,
    sign_sealed,
)
from provenance.formats.producers.batch import batch_run
from provenance.formats.record import Phase
from provenance.ledger.batch_writer import BatchWriter, IngestResult
from provenance.ledger.seal import SEALS_AT_ONCE, SealPolicy, note_due, seal_ready
from provenance.ledger.teams import admissible
from provenance.log import get_logger
from provenance.ports.store import LedgerStore
from provenance.ports.transport import Delivery, EventTransport
from provenance.ports.values import LedgerEntry, ProducerRow

BATCHES_PER_READ = 500
HELD_UP = (FormatError, InputError, IntegrityError)
"""What a run's own records and rows raise; any other error of ours is no fault of theirs."""
TRANSACTION_S = 0.25
"""A transaction begins nothing more after this: a task that is cut off loses no more than it."""

_log = get_logger("provenance.ledger")


def drain(
    transport: EventTransport,
    store: LedgerStore,
    policy: SealPolicy,
    consumer: str,
    clock: Callable[[], float],
    stale_after_s: float = 60.0,
    within_s: float = 5.0,
) -> IngestResult:
    """Read and ingest until the stream is empty, or for ``within_s`` and what was read then.

    Entries that a dead consumer left behind for ``stale_after_s`` are taken over, one at a time:
    one that kills its worker is then known by its count of deliveries, and no other shares it.

    Args:
        clock: Unix time in seconds: of each transaction as it begins.

    Raises:
        TransportUnavailable, StoreUnavailable: Nothing is lost; what was not acknowledged
            is delivered again.
        LedgerForkError: As :meth:`provenance.ledger.guard.LedgerGuard.check`; nothing was read.
    """
    policy.check(store)
    total, until = IngestResult(), time.monotonic() + within_s
    while True:
        deliveries = transport.read(consumer, BATCHES_PER_READ)
        if not deliveries:
            deliveries = transport.claim_stale(consumer, stale_after_s, 1)
        if not deliveries:
            return total
        ingest(transport, store, policy, deliveries, clock, total)
        if time.monotonic() > until:
            total.more = True
            return total


def ingest(
    transport: EventTransport,
    store: LedgerStore,
    policy: SealPolicy,
    deliveries: Sequence[Delivery],
    clock: Callable[[], float],
    total: IngestResult | None = None,
) -> IngestResult:
    """Ingest entries, each run's in transactions of its own, and acknowledge them.

    A run whose records cannot be read or written is logged and waits: its entries come again
    until they are parked. Where the database takes nothing they come again for as long as that.

    Raises:
        TransportUnavailable, StoreUnavailable: As :func:`drain`.
    """
    total = total if total is not None else IngestResult()
    by_run: dict[bytes, list[Delivery]] = {}
    for delivery in deliveries:
        by_run.setdefault(batch_run(delivery.payload), []).append(delivery)
    for own in by_run.values():
        try:
            _ingest_run(transport, store, policy, own, clock, total)
        except HELD_UP as error:
            _log.error("run held up", run=str(_run_of(own[0])), problem=str(error))
    return total


def _ingest_run(
    transport: EventTransport,
    store: LedgerStore,
    policy: SealPolicy,
    deliveries: Sequence[Delivery],
    clock: Callable[[], float],
    total: IngestResult,
) -> None:
    """Ingest entries of one run (or that are no batches), in transactions of bounded time."""
    waiting, claimed = deque(deliveries), _run_of(deliveries[0])
    while waiting:
        taken: list[Delivery] = []
        done = IngestResult()
        until, began_ns = time.monotonic() + TRANSACTION_S, time.time_ns()
        try:
            with policy.transaction(store, claimed) as tx:
                now = clock()
                writer = BatchWriter(tx, now, done, policy.trainers, policy.teams)
                while waiting and (not taken or time.monotonic() < until):
                    taken.append(waiting.popleft())
                    writer.take(taken[-1])
                writer.save()
                for run, epochs in writer.touched.items():
                    note_due(tx, run, epochs)
                    done.entries.extend(seal_ready(tx, run, policy, now, until, bool(waiting)))
                sealed = [run for run in writer.touched if writer.is_sealed(run)]
                sealed += [entry.run for entry in done.entries if entry.phase is Phase.AFTER]
        except BaseException as error:
            ours = isinstance(error, ProvenanceError)
            if not ours:
                _log.error("run held up", run=str(claimed), problem=type(error).__name__)
            # Full or away; or it hung until the task's limit before anything was taken.
            if not taken or (ours and not isinstance(error, HELD_UP)):
                with suppress(TransportUnavailable):
                    transport.give_back([*taken, *waiting])
            raise
        done.runs = list(writer.touched)
        for run in done.runs:
            tracing.note("drain", run, began_ns, batches=done.batches, records=done.new)
        _tell_sealed(done.entries, began_ns)
        total.add(done)
        for held in writer.gate.held.values():
            _log.warning("run held back", run=str(held.run), problem=held.reason)
        _acknowledge(
            transport, policy, writer.producers.values(), sealed, writer.gate.waiting, taken
        )
        if time.monotonic() > until or len(done.entries) >= SEALS_AT_ONCE:
            for run in writer.touched:
                total.entries.extend(seal_due(store, run, policy, clock, bool(waiting)))


def seal_due(
    store: LedgerStore,
    run: UUID,
    policy: SealPolicy,
    clock: Callable[[], float],
    more: bool = False,
) -> list[LedgerEntry]:
    """Make what is left of a run's seals that are due, in transactions of bounded time.

    Args:
        more: As :func:`seal_ready`.

    Raises:
        StoreUnavailable: What was committed stands.
        FormatError, InputError, IntegrityError: The run's records cannot be read.
    """
    made: list[LedgerEntry] = []
    while True:
        with store.snapshot() as tx:
            tree = tx.tree(run)
            if tree is None or tx.next_due(run, tree.closed) is None:
                return made
        made += _seal(store, run, policy, clock, more)


def seal_overdue(
    store: LedgerStore, run: UUID, policy: SealPolicy, clock: Callable[[], float]
) -> None:
    """Make the seals of a run that nothing more came of in time; raises as :func:`seal_due`."""
    _seal(store, run, policy, clock, False)
    seal_due(store, run, policy, clock)


def _seal(
    store: LedgerStore, run: UUID, policy: SealPolicy, clock: Callable[[], float], more: bool
) -> list[LedgerEntry]:
    """The seals that are made in one transaction."""
    began_ns = time.time_ns()
    with policy.transaction(store, run) as tx:
        until = time.monotonic() + TRANSACTION_S
        sealed = seal_ready(tx, run, policy, clock(), until, more)
    _tell_sealed(sealed, began_ns)
    return sealed


def _tell_sealed(entries: Iterable[LedgerEntry], began_ns: int) -> None:
    """A log line and a span of each; with a run's last, the run's own span."""
    for entry in entries:
        seal = {"phase": entry.phase.value, "epoch": entry.epoch}
        _log.info("ledger.sealed", run=str(entry.run), **seal, head=entry.index + 1)
        tracing.note("seal", entry.run, began_ns, phase=entry.phase.value, entry=entry.index)
        if entry.phase is Phase.AFTER:
            tracing.note(tracing.ROOT, entry.run, (entry.run.int >> 80) * 1_000_000)


def _run_of(delivery: Delivery) -> UUID | None:
    """The run that an entry says to be of; None where it can be no batch."""
    name = batch_run(delivery.payload)
    return UUID(bytes=name) if len(name) == 16 else None


def announce_sealed(transport: EventTransport, store: LedgerStore, policy: SealPolicy) -> None:
    """Tell the shippers of each run that was sealed since, on whatever host, that it takes no more.

    Raises:
        TransportUnavailable, StoreUnavailable: The rest is told by the next call.
    """
    while True:
        with store.snapshot() as tx:
            runs = tx.unannounced(BATCHES_PER_READ)
        if not runs:
            return
        generation = transport.generation()
        for run in runs:
            said = {NOBODY: sign_sealed(run, policy.signer)}
            transport.publish_acknowledged(run, said, generation)
        with store.transaction() as tx:
            tx.announced(runs)


def release_held(
    transport: EventTransport, store: LedgerStore, policy: SealPolicy, now: float
) -> None:
    """Let runs that were held back go on where nothing stands against it any more.

    Raises:
        TransportUnavailable, StoreUnavailable: The rest goes on at the next call.
    """
    with store.snapshot() as tx:
        rows = admissible(tx, policy.teams, now)
    if not rows:
        return
    generation = transport.generation()
    for row in rows:
        said = {GATE: sign_gate(row.run, False, policy.signer)}
        transport.publish_acknowledged(row.run, said, generation)
    with store.transaction() as tx:
        tx.release(rows, now)


def _acknowledge(
    transport: EventTransport,
    policy: SealPolicy,
    producers: Iterable[ProducerRow],
    sealed: Iterable[UUID],
    held: Iterable[UUID],
    taken: Sequence[Delivery],
) -> None:
    """Tell the shippers how far their events are in the database, under the ledger's key."""
    signed: dict[UUID, dict[bytes, bytes]] = {}
    for row in producers:
        signed.setdefault(row.run, {})[row.producer] = sign_acknowledgement(
            row.run, row.producer, row.contiguous, row.chain, policy.signer
        )
    for run in sealed:
        signed.setdefault(run, {})[NOBODY] = sign_sealed(run, policy.signer)
    for run in held:
        signed.setdefault(run, {})[GATE] = sign_gate(run, True, policy.signer)
    try:
        for run, acknowledgements in signed.items():
            transport.publish_acknowledged(run, acknowledgements, taken[-1].generation)
    finally:
        # Also where a full server refuses them: deleting entries is what makes room.
        transport.ack(taken)
