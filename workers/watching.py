"""The verifying worker's other task: runs are verified again, alerts sent, old runs archived."""

from __future__ import annotations

import time

from provenance.archiving import archive_next
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
    """Verify again and archive what is due, and tell of what changed."""
    until, archive = time.monotonic() + WITHIN_S, settings().archive
    times = {
        Work.VERIFICATION: settings().verification.every_s,
        Work.ARCHIVE: None if archive is None else archive.after_s,
    }
    with resources.store().transaction() as tx:
        for kind, after in times.items():
            if after is not None:
                tx.add_work_of_sealed(kind, after, time.time())
    while _verify() | _send() | _archive():
        if time.monotonic() > until:
            ring(again, "verify")
            break


def _verify() -> bool:
    """Whether there was something to do."""
    if settings().verification.every_s is None:
        return False
    look = verify_next(settings_of(READERS), resources.store(), resources.policy(), time.time)
    if look is None:
        return False
    told = {"run": str(look.run), "before": look.before, "after": look.after}
    if look.changed:
        log.error("verification.changed", **told, finding=look.finding)
    else:
        log.info("verification.open" if look.after is None else "verification.same", **told)
    return True


def _archive() -> bool:
    if settings().archive is None:
        return False
    moved = archive_next(settings(), resources.store(), time.time)
    if moved is None:
        return False
    run, row = moved
    if isinstance(row, str):
        log.warning("archive.stays", run=str(run), problem=row)
    else:
        log.info("archive.done", run=str(run), records=row.records, size=row.size)
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
