"""The sweep: re-creates every missing hint from the database and the streams."""

from __future__ import annotations

import time

from provenance.anchor.confirm import LOOKED_AT
from provenance.anchor.courier import stranded_networks
from provenance.errors import UnavailableError
from provenance.ledger.seal import seal_ready
from provenance.ports import AnchorState
from workers import confirming, hashing, parts
from workers.anchoring import hint
from workers.app import app, settings
from workers.hints import ring
from workers.telemetry import log

PUBLISHED = (AnchorState.DUE, AnchorState.SIGNED)


@app.task(name="workers.schedule.sweep")  # type: ignore[untyped-decorator]
def sweep() -> None:
    """Ring every queue that has work."""
    now = time.time()
    try:
        with parts.store().snapshot() as tx:
            stranded = stranded_networks(tx, now, settings().lease_s)
            publishable = tx.due_networks(PUBLISHED, now) | stranded
            lookable = tx.due_networks(LOOKED_AT, now) | stranded
            unsealed = [row.run for row in tx.runs() if row.state == "open"]
        for run in unsealed:
            with parts.store().transaction() as tx:
                seal_ready(tx, run, parts.policy(), now)
        for network in publishable:
            hint(network)
        for network in lookable:
            confirming.hint(network)
        if parts.transport().backlog():
            ring(hashing.drain, queue="hashing")
    except UnavailableError as error:
        log.warning("sweep.unavailable", problem=str(error))
