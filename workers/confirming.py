"""The confirming task: what became of the transactions of one network.

It runs on the network's own queue, so that a node that hangs holds up no other network.
"""

from __future__ import annotations

import time

from provenance.anchor.confirm import confirm as confirm_sent
from provenance.anchor.delivery import Outcome
from provenance.app.health import anchor_queue
from provenance.observe import counts
from workers import resources, verifying
from workers.app import app, settings
from workers.dispatch import ring
from workers.telemetry import log_anchors, reporting


def hint(network: str) -> None:
    """Ask for a look at a network's transactions."""
    ring(confirm, anchor_queue(network), network)


@app.task(name="workers.confirming.confirm")  # type: ignore[untyped-decorator]  # Celery has no types
@reporting("confirming", refused="misconfigured")
def confirm(network: str) -> None:
    """Look at what is under way on one network; receipts follow."""
    began_ns = time.time_ns()
    done = confirm_sent(resources.delivery(network), poll_s=min(settings().sweep_interval_s, 5.0))
    log_anchors("confirming.looked", resources.store(), network, done, "confirm", began_ns)
    counts.outcomes(network, done)
    if done.having(Outcome.FINAL):
        verifying.hint()
