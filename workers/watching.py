"""The verifying worker's other task: runs are verified again, and alerts are sent."""

from __future__ import annotations

import time

from provenance.ports.values import Work
from provenance.settings import READERS
from provenance.watch.again import verify_next
from provenance.watch.webhook import send_next
from workers import resources
from workers.app import app, settings, settings_of
from workers.dispatch import ring
from workers.telemetry import log, reporting

WITHIN_S = 5.0
"""Nothing is begun behind this: reports wait for the same worker."""


@app.task(name="workers.watching.again")  # type: ignore[untyped-decorator]  # Celery has no types
@reporting("watch")
def again() -> None:
    """Verify again what is due, and tell of what changed."""
    until, every = time.monotonic() + WITHIN_S, settings().verification.every_s
    if every is None:
        return
    with resources.store().transaction() as tx:
        tx.add_work_of_sealed(Work.VERIFICATION, every)
    while _verify() | _send():
        if time.monotonic() > until:
            ring(again, "verify")
            break


def _verify() -> bool:
    """Whether there was something to do."""
    look = verify_next(settings_of(READERS), resources.store(), time.time)
    if look is None:
        return False
    told = {"run": str(look.run), "before": look.before, "after": look.after}
    if look.changed:
        log.error("verification.changed", **told, finding=look.finding)
    else:
        log.info("verification.open" if look.after is None else "verification.same", **told)
    return True


def _send() -> bool:
    webhook = settings().verification.webhook
    sent = send_next(webhook, resources.store(), time.time) if webhook is not None else None
    if sent is None:
        return False
    if sent.problem is not None:
        log.warning("alert.waits", run=sent.run, delivery=sent.id, problem=sent.problem)
    else:
        log.info("alert.sent", run=sent.run, delivery=sent.id)
    return True
