"""The Ethereum worker's task beside anchors: outcomes of scheduled verifications are attested.

It runs on the network's own queue, so that a node that hangs holds up no verification.
"""

from __future__ import annotations

import time

from provenance.app.health import anchor_queue
from provenance.watch.attest import attest_next
from workers import resources
from workers.app import app, settings_of
from workers.dispatch import ring
from workers.telemetry import log, reporting

NETWORK = "ethereum"
WITHIN_S = 5.0
"""Nothing is begun behind this: anchors wait for the same worker."""


def hint() -> None:
    """Ring the Ethereum worker."""
    ring(attest, anchor_queue(NETWORK))


@app.task(name="workers.attesting.attest")  # type: ignore[untyped-decorator]  # Celery has no types
@reporting("attesting")
def attest() -> None:
    """Attest what is due, until the node fails."""
    until = time.monotonic() + WITHIN_S
    while (done := attest_next(settings_of((NETWORK,)), resources.store(), time.time)) is not None:
        told = {"run": done.run, "outcome": done.outcome}
        if done.problem is not None:
            log.warning("attestation.waits", run=done.run, problem=done.problem)
        elif done.transaction is not None:
            log.info("attestation.sent", **told, transaction=done.transaction)
        else:
            log.info("attestation.done", **told)
        if done.retryable:
            break
        if time.monotonic() > until:
            hint()
            break
