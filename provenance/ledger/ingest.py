"""Ingest: signed batches from the stream become records in the database.

Life of a batch: it is read, written (:mod:`provenance.ledger.batch_writer`), seals that have become
possible are made, the transaction commits, and only then is the entry acknowledged, under the
ledger's signature. A crash anywhere repeats the whole; repeating changes nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from uuid import UUID

import structlog

from provenance import tracing
from provenance.errors import (
    FormatError,
    InputError,
    IntegrityError,
)
from provenance.formats.producers.acknowledgement import (
    NOBODY,
    sign_acknowledgement,
    sign_sealed,
)
from provenance.formats.producers.batch import batch_run
from provenance.formats.record import Phase
from provenance.ledger.batch_writer import BatchWriter, IngestResult
from provenance.ledger.seal import SEALS_AT_ONCE, SealPolicy, note_due, seal_ready
from provenance.ports.store import LedgerStore
from provenance.ports.transport import Delivery, EventTransport
from provenance.ports.values import LedgerEntry, ProducerRow

BATCHES_PER_READ = 500
TRANSACTION_S = 0.25
"""A transaction begins nothing more after this: a task that is cut off loses no more than it."""

_log = structlog.get_logger("provenance.ledger")


def drain(
    transport: EventTransport,
    store: LedgerStore,
    policy: SealPolicy,
    consumer: str,
    now: float,
    stale_after_s: float = 60.0,
    within_s: float = 5.0,
) -> IngestResult:
    """Read and ingest until the stream is empty, or for ``within_s`` and what was read then.

    Entries that a dead consumer left behind for ``stale_after_s`` are taken over, one at a time:
    one that kills its worker is then known by its count of deliveries, and no other shares it.

    Raises:
        TransportUnavailable, StoreUnavailable: Nothing is lost; what was not acknowledged
            is delivered again.
    """
    total, until = IngestResult(), time.monotonic() + within_s
    while True:
        deliveries = transport.read(consumer, BATCHES_PER_READ)
        if not deliveries:
            deliveries = transport.claim_stale(consumer, stale_after_s, 1)
        if not deliveries:
            return total
        ingest(transport, store, policy, deliveries, now, total)
        if time.monotonic() > until:
            total.more = True
            return total


def ingest(
    transport: EventTransport,
    store: LedgerStore,
    policy: SealPolicy,
    deliveries: Sequence[Delivery],
    now: float,
    total: IngestResult | None = None,
) -> IngestResult:
    """Ingest entries, each run's in transactions of its own, and acknowledge them.

    A run whose records cannot be read or written is logged and waits: its entries come again
    until they are parked.

    Raises:
        TransportUnavailable, StoreUnavailable: As :func:`drain`.
    """
    total = total if total is not None else IngestResult()
    by_run: dict[bytes, list[Delivery]] = {}
    for delivery in deliveries:
        by_run.setdefault(batch_run(delivery.payload), []).append(delivery)
    for own in by_run.values():
        try:
            _ingest_run(transport, store, policy, own, now, total)
        except (FormatError, InputError, IntegrityError) as error:
            _log.error("run held up", run=batch_run(own[0].payload).hex(), problem=str(error))
    return total


def _ingest_run(
    transport: EventTransport,
    store: LedgerStore,
    policy: SealPolicy,
    deliveries: Sequence[Delivery],
    now: float,
    total: IngestResult,
) -> None:
    """Ingest entries of one run (or that are no batches), in transactions of bounded time."""
    waiting, name = deque(deliveries), batch_run(deliveries[0].payload)
    claimed = UUID(bytes=name) if len(name) == 16 else None
    while waiting:
        taken: list[Delivery] = []
        done = IngestResult()
        until, began_ns = time.monotonic() + TRANSACTION_S, time.time_ns()
        with store.transaction(claimed) as tx:
            writer = BatchWriter(tx, now, done, policy.trainers)
            while waiting and (not taken or time.monotonic() < until):
                taken.append(waiting.popleft())
                writer.take(taken[-1])
            writer.save()
            for run, epochs in writer.touched.items():
                note_due(tx, run, epochs)
                done.entries.extend(seal_ready(tx, run, policy, now, until, bool(waiting)))
            sealed = [run for run in writer.touched if writer.is_sealed(run)]
            sealed += [entry.run for entry in done.entries if entry.phase is Phase.AFTER]
        total.add(done)
        for run in writer.touched:
            tracing.note("drain", run, began_ns, batches=done.batches, records=done.new)
        trace_seals(done.entries, began_ns)
        _acknowledge(transport, policy, writer.producers.values(), sealed, taken)
        if time.monotonic() > until or len(done.entries) >= SEALS_AT_ONCE:
            for run in writer.touched:
                made = seal_due(store, run, policy, now, bool(waiting))
                total.entries.extend(made)
                trace_seals(made, began_ns)
                if any(entry.phase is Phase.AFTER for entry in made):
                    say_sealed(transport, run, policy)


def seal_due(
    store: LedgerStore, run: UUID, policy: SealPolicy, now: float, more: bool = False
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
        with store.transaction(run) as tx:
            made += seal_ready(tx, run, policy, now, time.monotonic() + TRANSACTION_S, more)


def trace_seals(made: Iterable[LedgerEntry], began_ns: int) -> None:
    """A span of each; with its last, the run's own."""
    for entry in made:
        tracing.note("seal", entry.run, began_ns, phase=entry.phase.value, entry=entry.index)
        if entry.phase is Phase.AFTER:
            tracing.note(tracing.ROOT, entry.run, (entry.run.int >> 80) * 1_000_000)


def say_sealed(transport: EventTransport, run: UUID, policy: SealPolicy) -> None:
    """Tell the shippers of a run, on whatever host, that it takes no more."""
    said = {NOBODY: sign_sealed(run, policy.signer)}
    transport.publish_acknowledged(run, said, transport.generation())


def _acknowledge(
    transport: EventTransport,
    policy: SealPolicy,
    producers: Iterable[ProducerRow],
    sealed: Iterable[UUID],
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
    try:
        for run, acknowledgements in signed.items():
            transport.publish_acknowledged(run, acknowledgements, taken[-1].generation)
    finally:
        # Also where a full server refuses them: deleting entries is what makes room.
        transport.ack(taken)
