"""The verifying worker's task: check a run again."""

from __future__ import annotations

from provenance import wiring
from provenance.errors import UnavailableError
from workers.app import app, settings
from workers.telemetry import log


@app.task(name="workers.verifying.verify")  # type: ignore[untyped-decorator]
def verify(run: str) -> None:
    """Verify a run on every configured network and log the outcome."""
    try:
        report = wiring.verify_run(settings(), run)
    except UnavailableError as error:
        log.warning("verify.unavailable", run=run, problem=str(error))
        return
    log.info("verify.done", run=run, outcome=report.outcome)
