"""The verifying worker's other task: runs are verified again, alerts sent, old runs archived; and
the Ethereum worker's, beside anchors: their outcomes are attested.

That one runs on the network's own queue, so that a node that hangs holds up no verification.
"""

from __future__ import annotations

import time

from provenance.app.health import anchor_queue
from provenance.archiving import archive_next
from provenance.ports.values import Work
from provenance.settings import READERS
from provenance.watch.again import verify_next
from provenance.watch.attest import attest_next
from provenance.watch.webhook import send_next
from workers import resources
from workers.app import app, settings, settings_of
from workers.dispatch import ring
from workers.telemetry import log, reporting

WITHIN_S = 5.0
"""Nothing is begun behind this: reports, or anchors, wait for the same worker."""
ETHEREUM = "ethereum"


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


def hint_attest() -> None:
    """Ring the Ethereum worker."""
    ring(attest, anchor_queue(ETHEREUM))


@app.task(name="workers.watching.attest")  # type: ignore[untyped-decorator]  # Celery has no types
@reporting("attest")
def attest() -> None:
    """Attest what is due, until the node fails."""
    until = time.monotonic() + WITHIN_S
    while (done := attest_next(settings_of((ETHEREUM,)), resources.store(), time.time)) is not None:
        if done.problem is not None:
            log.warning("attestation.waits", run=done.run, problem=done.problem)
        else:
            event = "attestation.done" if done.transaction is None else "attestation.sent"
            log.info(event, run=done.run, outcome=done.outcome, transaction=done.transaction)
        if done.retryable:
            break
        if time.monotonic() > until:
            hint_attest()
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
