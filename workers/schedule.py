"""The sweep: re-creates every missing hint from the database and the streams."""

from __future__ import annotations

import time

from provenance.anchor.confirm import LOOKED_AT
from provenance.anchor.delivery import stranded_networks
from provenance.errors import ProvenanceError, UnavailableError
from provenance.formats.record import Phase
from provenance.ledger.ingest import TRANSACTION_S, say_sealed, seal_due
from provenance.ledger.seal import seal_ready
from provenance.ports.values import AnchorState
from workers import alive, anchoring, confirming, hashing, resources
from workers.app import app, settings
from workers.telemetry import log

PUBLISHED = (AnchorState.DUE, AnchorState.SIGNED)


@app.task(name="workers.schedule.sweep", send_events=False)  # type: ignore[untyped-decorator]  # Celery has no types
def sweep() -> None:
    """Make the seals that are overdue, then ring every queue that has work."""
    now = time.time()
    try:
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
    except ProvenanceError as error:
        log.error("sweep.stopped", problem=str(error))


def _seal_overdue(now: float) -> None:
    """A damaged record holds up its own run alone."""
    store, policy = resources.store(), resources.policy()
    with store.snapshot() as tx:
        waiting = tx.awaiting_seal(now - policy.lost_after_s)
    for run in waiting:
        try:
            with store.transaction(run) as tx:
                made = seal_ready(tx, run, policy, now, time.monotonic() + TRANSACTION_S)
            made += seal_due(store, run, policy, now)
            if any(entry.phase is Phase.AFTER for entry in made):
                say_sealed(resources.transport(), run, policy)
        except UnavailableError:
            raise
        except ProvenanceError as error:
            log.error("sweep.damaged", run=str(run), problem=str(error))
