"""The sweep: re-creates every missing hint from the database and the streams."""

from __future__ import annotations

import time
from uuid import UUID

from provenance.anchor.confirm import LOOKED_AT
from provenance.anchor.delivery import stranded_networks
from provenance.app.report import due_report
from provenance.errors import LedgerForkError, ProvenanceError, UnavailableError
from provenance.ledger.ingest import announce_sealed, release_held, seal_overdue
from provenance.ports.values import AnchorState
from provenance.watch.attest import due_attestation
from workers import alive, anchoring, beacons, confirming, hashing, resources, verifying, watching
from workers.app import app, settings
from workers.telemetry import log, reporting

NO_RUN = UUID(int=0)
PUBLISHED = (AnchorState.DUE, AnchorState.HELD, AnchorState.SIGNED)


@app.task(name="workers.schedule.sweep", send_events=False)  # type: ignore[untyped-decorator]  # Celery has no types
@reporting("sweep")
def sweep() -> None:
    """Make the seals that are overdue, then ring every queue that has work.

    It commits something each time: what the database does not take is seen before there is work.
    """
    with resources.store().transaction(NO_RUN) as tx:  # which waits for no other
        tx.note_commit("sweep", time.time())
    _seal_overdue()
    now = time.time()
    with resources.store().snapshot() as tx:
        stranded = stranded_networks(tx, now, settings().lease_s)
        publishable = tx.due_networks(PUBLISHED, now) | stranded
        lookable = tx.due_networks(LOOKED_AT, now) | stranded
        report = due_report(settings(), tx, now)
        attestation = due_attestation(settings(), tx, now)
    for network in sorted(publishable):
        anchoring.hint(network)
    for network in sorted(lookable):
        confirming.hint(network)
    if report is not None:
        verifying.hint()
    if attestation is not None:
        watching.hint_attest()
    announce_sealed(resources.transport(), resources.store(), resources.policy())
    release_held(resources.transport(), resources.store(), resources.policy(), now)
    resources.transport().ping()
    hashing.hint()
    alive.ring_all()
    beacons.ring_all()


def _seal_overdue() -> None:
    """A damaged record holds up its own run alone."""
    store, policy = resources.store(), resources.policy()
    policy.check(store)
    with store.snapshot() as tx:
        waiting = tx.awaiting_seal(time.time() - policy.lost_after_s)
    for run in waiting:
        try:
            seal_overdue(store, run, policy, time.time)
        except (UnavailableError, LedgerForkError):
            raise
        except ProvenanceError as error:
            log.error("sweep.damaged", run=str(run), problem=str(error))
