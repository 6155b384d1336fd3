"""The sweep: re-creates every missing hint from the database and the streams."""

from __future__ import annotations

import time
from uuid import UUID

from provenance.anchor.confirm import LOOKED_AT
from provenance.anchor.delivery import stranded_networks
from provenance.errors import ProvenanceError, UnavailableError
from provenance.formats.record import Phase
from provenance.ledger.ingest import TRANSACTION_S, say_sealed, seal_due, trace_seals
from provenance.ledger.seal import seal_ready
from provenance.ports.values import AnchorState
from workers import alive, anchoring, confirming, hashing, resources
from workers.app import app, settings
from workers.telemetry import log

NO_RUN = UUID(int=0)
PUBLISHED = (AnchorState.DUE, AnchorState.SIGNED)


@app.task(name="workers.schedule.sweep")  # type: ignore[untyped-decorator]  # Celery has no types
def sweep() -> str | None:
    """Make the seals that are overdue, then ring every queue that has work.

    It commits something each time: what the database does not take is seen before there is work.
    """
    now = time.time()
    try:
        with resources.store().transaction(NO_RUN) as tx:  # which waits for no other
            tx.note_commit("sweep", now)
        _seal_overdue(now)
        with resources.store().snapshot() as tx:
            stranded = stranded_networks(tx, now, settings().lease_s)
            publishable = tx.due_networks(PUBLISHED, now) | stranded
            lookable = tx.due_networks(LOOKED_AT, now) | stranded
        for network in sorted(publishable):
            anchoring.hint(network)
        for network in sorted(lookable):
            confirming.hint(network)
        resources.transport().ping()
        hashing.hint()
        alive.ring_all()
    except UnavailableError as error:
        log.warning("sweep.unavailable", problem=str(error))
        return str(error)
    except ProvenanceError as error:
        log.error("sweep.stopped", problem=str(error))
        return str(error)
    return None


def _seal_overdue(now: float) -> None:
    """A damaged record holds up its own run alone."""
    store, policy = resources.store(), resources.policy()
    with store.snapshot() as tx:
        waiting = tx.awaiting_seal(now - policy.lost_after_s)
    for run in waiting:
        began_ns = time.time_ns()
        try:
            with store.transaction(run) as tx:
                made = seal_ready(tx, run, policy, now, time.monotonic() + TRANSACTION_S)
            made += seal_due(store, run, policy, now)
            trace_seals(made, began_ns)
            if any(entry.phase is Phase.AFTER for entry in made):
                say_sealed(resources.transport(), run, policy)
        except UnavailableError:
            raise
        except ProvenanceError as error:
            log.error("sweep.damaged", run=str(run), problem=str(error))
