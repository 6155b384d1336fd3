"""The verifying worker's task: check a run again and write its report."""

from __future__ import annotations

import time
from uuid import UUID

from provenance import tracing
from provenance.app.report import write_report
from provenance.errors import ProvenanceError, UnavailableError
from provenance.settings import READERS
from workers.app import app, settings_of
from workers.dispatch import ring
from workers.telemetry import log


def hint(run: str) -> None:
    """Ask for a run to be checked; one that is lost can be made good by ``provenance verify``."""
    ring(verify, "verify", run)


@app.task(name="workers.verifying.verify")  # type: ignore[untyped-decorator]  # Celery has no types
def verify(run: str) -> None:
    """Verify a run on every configured network and write ``reports/<run>/``."""
    began_ns = time.time_ns()
    try:
        page = write_report(settings_of(READERS), run)
    except UnavailableError as error:
        log.warning("verify.unavailable", run=run, problem=str(error))
        return
    except ProvenanceError as error:
        log.error("verify.refused", run=run, problem=str(error))
        return
    tracing.note("verify", UUID(run), began_ns)
    log.info("verify.done", run=run, report=str(page))
