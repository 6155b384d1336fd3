"""The anchoring worker's task: heads that are due become transactions, on one network."""

from __future__ import annotations

import time

from provenance.anchor.publish import publish as publish_due
from provenance.app.health import anchor_queue
from provenance.observe import counts
from workers import confirming, resources
from workers.app import app
from workers.dispatch import ring
from workers.telemetry import log_anchors, reporting


def hint(network: str) -> None:
    """Ring a network's worker; a hint that does not arrive costs one sweep interval."""
    ring(publish, anchor_queue(network), network)


@app.task(name="workers.anchoring.publish")  # type: ignore[untyped-decorator]  # Celery has no types
@reporting("anchoring", refused="misconfigured")
def publish(network: str) -> None:
    """Send what is due on one network."""
    began_ns = time.time_ns()
    resources.compared(network)
    done = publish_due(resources.delivery(network))
    log_anchors("anchoring.published", resources.store(), network, done, "publish", began_ns)
    counts.outcomes(network, done)
    if done.outcomes or done.replaced:
        confirming.hint(network)
