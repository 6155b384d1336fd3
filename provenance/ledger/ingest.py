"""Ingest: signed batches from the stream become records in the database.

Life of a batch: it is read, written (:mod:`provenance.ledger.batch_writer`), seals that have become
possible are made, the transaction commits, and only then is the entry acknowledged, under the
ledger's signature. A crash anywhere repeats the whole; repeating changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import structlog

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
from provenance.ledger.batch_writer import BatchWriter, IngestResult
from provenance.ledger.seal import SealPolicy, log_left_out, seal_ready
from provenance.ports.store import LedgerStore
from provenance.ports.transport import Delivery, EventTransport

BATCHES_PER_READ = 500

_log = structlog.get_logger("provenance.ledger")


def drain(
    transport: EventTransport,
    store: LedgerStore,
    policy: SealPolicy,
    consumer: str,
    now: float,
    stale_after_s: float = 60.0,
    limit: int = 100,
) -> IngestResult:
    """Read and ingest until the stream is empty, at most ``limit`` reads.

    Entries that a dead consumer left behind for ``stale_after_s`` are taken over, one at a time:
    one that kills its worker is then known by its count of deliveries, and no other shares it.

    Raises:
        TransportUnavailable, StoreUnavailable: Nothing is lost; what was not acknowledged
            is delivered again.
    """
    total = IngestResult()
    for _ in range(limit):
        deliveries = transport.read(consumer, BATCHES_PER_READ)
        if not deliveries:
            deliveries = transport.claim_stale(consumer, stale_after_s, 1)
        if not deliveries:
            break
        ingest(transport, store, policy, deliveries, now, total)
    return total


def ingest(
    transport: EventTransport,
    store: LedgerStore,
    policy: SealPolicy,
    deliveries: Sequence[Delivery],
    now: float,
    total: IngestResult | None = None,
) -> IngestResult:
    """Ingest entries, each run's in a transaction of its own, and acknowledge them.

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
    """Ingest entries of one run (or that are no batches) in one transaction."""
    done = IngestResult()
    with store.transaction() as tx:
        writer = BatchWriter(tx, now, done, policy.trainers)
        touched = {run for run in map(writer.take, deliveries) if run is not None}
        writer.save()
        for run in sorted(touched):
            if run in writer.marks:
                log_left_out(tx, run, writer.marks[run])
            done.entries.extend(seal_ready(tx, run, policy, now))
        acknowledgements: dict[UUID, dict[bytes, bytes]] = {}
        for row in writer.producers.values():
            acknowledgements.setdefault(row.run, {})[row.producer] = sign_acknowledgement(
                row.run, row.producer, row.contiguous, row.chain, policy.signer
            )
        for run, own in acknowledgements.items():
            row_of_run = tx.run(run)
            if row_of_run is not None and row_of_run.state == "sealed":
                own[NOBODY] = sign_sealed(run, policy.signer)
    total.add(done)
    try:
        for run, producers in acknowledgements.items():
            transport.publish_acknowledged(run, producers, deliveries[-1].generation)
    finally:
        # Also where a full server refuses them: deleting entries is what makes room.
        transport.ack(deliveries)
