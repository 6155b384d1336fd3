"""Runs verified again, one at a time, and an alert where one comes out otherwise than before.

Life of a verification: it is due ``verification.every`` behind the run's seal; whoever takes it
puts it off by a lease, so that nobody else does, and one that died has it taken again; the run is
verified on the networks; how that came out is written with the alert, in one transaction, and the
next one is due. A network that does not answer says nothing of the run: another try is due.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID, uuid4

from provenance.anchor.outbox import ceiling
from provenance.app.report import AGAIN, claim, unreachable
from provenance.app.verify import verify_run
from provenance.errors import IntegrityError
from provenance.ports.store import LedgerStore
from provenance.ports.values import Work
from provenance.settings import Settings

LEASE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Look:
    """A run that was verified again.

    Attributes:
        before: The outcome before; None where this was the first.
        after: The outcome now; None where a network did not answer.
        finding: The first thing that does not hold.
    """

    run: UUID
    before: str | None
    after: str | None
    finding: str | None

    @property
    def changed(self) -> bool:
        """Whether somebody should look: another outcome, or a first one that is failed."""
        if self.after is None:
            return False
        return self.after == "failed" if self.before is None else self.after != self.before


def verify_next(settings: Settings, store: LedgerStore, now: Callable[[], float]) -> Look | None:
    """Verify the run that has waited longest; None where none is due.

    Raises:
        StoreUnavailable, ConfigError, MissingExtraError
    """
    every = settings.verification.every_s
    if every is None:
        return None
    at, horizon = now(), max(every, AGAIN.cap_s) + LEASE_S
    row = claim(store, lambda tx: tx.due_work(Work.VERIFICATION, at, horizon), at, LEASE_S)
    if row is None:
        return None
    after, finding = _outcome(settings, row.run)
    look = Look(row.run, row.told, after, finding)
    with store.transaction() as tx:
        if after is None:
            tx.save_work(replace(row, next_attempt_at=now() + ceiling(row.attempts, AGAIN)))
            return look
        if look.changed and settings.verification.webhook is not None:
            tx.add_work(Work.ALERT, row.run, now(), told=_body(look, now()))
        tx.save_work(replace(row, told=after, attempts=0, next_attempt_at=now() + every))
    return look


def _outcome(settings: Settings, run: UUID) -> tuple[str | None, str | None]:
    """How a run comes out, and the first finding; None where a network did not answer."""
    try:
        report = verify_run(settings, str(run))
    except IntegrityError as error:
        return "failed", str(error)
    if report.findings:
        first = report.findings[0]
        return report.outcome, f"({first.check}) {first.subject}: {first.problem}"
    if unreachable(report):
        return None, None
    return report.outcome, None


def _body(look: Look, now: float) -> str:
    event = {
        "v": 1,
        "id": str(uuid4()),
        "event": "verification.changed",
        "run": str(look.run),
        "before": look.before,
        "after": look.after,
        "finding": look.finding,
        "at": now,
    }
    return json.dumps(event)
