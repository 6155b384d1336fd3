"""The verifying worker's task: write the reports of runs that have become final everywhere."""

from __future__ import annotations

import time

from celery.exceptions import SoftTimeLimitExceeded

from provenance import tracing
from provenance.app.report import claim, due_report, write_due_report
from provenance.errors import ProvenanceError
from provenance.ports.values import DueWork
from provenance.settings import READERS
from workers import resources
from workers.app import app, settings, settings_of
from workers.dispatch import ring
from workers.telemetry import log, reporting

WITHIN_S = 5.0
"""A task begins no report after this and rings itself: a sweep may wait for the same worker."""


def hint() -> None:
    """Ring the verifying worker."""
    ring(verify, "verify")


@app.task(name="workers.verifying.verify")  # type: ignore[untyped-decorator]  # Celery has no types
@reporting("verify")
def verify() -> None:
    """Verify runs on every configured network and write ``reports/<run>/``."""
    until = time.monotonic() + WITHIN_S
    while (row := _claim(time.time())) is not None:
        _write(row)
        if time.monotonic() > until:
            hint()
            break


def _claim(now: float) -> DueWork | None:
    return claim(resources.store(), lambda tx: due_report(settings(), tx, now), now)


def _write(row: DueWork) -> None:
    """A run that cannot be verified holds up no other."""
    told, began_ns = {"run": str(row.run), "attempt": row.attempts}, time.time_ns()
    try:
        page, unreachable = write_due_report(settings_of(READERS), resources.store(), row)
    except SoftTimeLimitExceeded:
        log.error("verify.refused", **told, problem="it takes longer than a task may")
        raise
    except ProvenanceError as error:
        log.error("verify.refused", **told, problem=str(error))
        return
    tracing.note("verify", row.run, began_ns)
    if unreachable:
        log.warning("verify.open", **told, unreachable=" ".join(unreachable), report=str(page))
    else:
        log.info("verify.done", **told, report=str(page))
