"""The hashing worker's task: stream to database."""

from __future__ import annotations

import time

from provenance.errors import ProvenanceError, UnavailableError
from provenance.ledger.ingest import drain as drain_stream
from workers import anchoring, figures, resources
from workers.app import app, settings
from workers.dispatch import ring
from workers.telemetry import log

DRAIN_S = 5.0
"""A drain reads nothing more after this and rings itself: far below the limits of a task."""


def hint() -> None:
    """Ring the hashing worker."""
    ring(drain, "hashing")


@app.task(name="workers.hashing.drain")  # type: ignore[untyped-decorator]  # Celery has no types
def drain() -> str | None:
    """Ingest all that waits in the stream, seal what is ready, ring the networks."""
    try:
        done = drain_stream(
            resources.transport(),
            resources.store(),
            resources.policy(),
            resources.owner(),
            time.time(),
            stale_after_s=settings().lease_s,
            within_s=DRAIN_S,
        )
    except UnavailableError as error:
        log.warning("hashing.unavailable", problem=str(error))
        return str(error)
    except ProvenanceError as error:
        log.error("hashing.stopped", problem=str(error))
        return str(error)
    figures.add("events", "new", number=done.new)
    figures.add("events", "duplicate", number=done.duplicates)
    if done.more:
        hint()
    if done.batches:
        log.info(
            "hashing.drained",
            batches=done.batches,
            new=done.new,
            duplicates=done.duplicates,
            parked=done.parked,
            sealed=len(done.entries),
        )
    if any(entry.anchor for entry in done.entries):
        for network in resources.policy().networks:
            anchoring.hint(network)
    return None
