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
from provenance.app.report import AGAIN, unreachable
from provenance.app.verify import verify_run
from provenance.errors import IntegrityError
from provenance.ports.store import LedgerStore
from provenance.ports.values import DueWork, Work
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


def take(
    store: LedgerStore, kind: Work, now: float, every_s: float = AGAIN.cap_s
) -> DueWork | None:
    """The work of a kind that is due, which is this caller's for a while; None without one.

    Args:
        every_s: The furthest that anything is put off, but for a lease.

    Raises:
        StoreUnavailable
    """
    horizon = max(every_s, AGAIN.cap_s) + LEASE_S
    with store.snapshot() as tx:
        if tx.due_work(kind, now, horizon) is None:
            return None
    with store.transaction() as tx:
        row = tx.due_work(kind, now, horizon)
        if row is not None:
            later = now + max(LEASE_S, ceiling(row.attempts + 1, AGAIN))
            tx.save_work(replace(row, attempts=row.attempts + 1, next_attempt_at=later))
        return row


def verify_next(settings: Settings, store: LedgerStore, now: Callable[[], float]) -> Look | None:
    """Verify the run that has waited longest; None where none is due.

    Raises:
        StoreUnavailable, ConfigError, MissingExtraError
    """
    every = settings.verification.every_s
    row = take(store, Work.VERIFICATION, now(), every) if every is not None else None
    if every is None or row is None:
        return None
    after, finding = _outcome(settings, row.run)
    look = Look(row.run, row.told, after, finding)
    with store.transaction() as tx:
        if after is None:
            tries = replace(row, attempts=row.attempts + 1)
            tx.save_work(replace(tries, next_attempt_at=now() + ceiling(row.attempts + 1, AGAIN)))
            return look
        if look.changed and settings.verification.webhook is not None:
            tx.add_work(Work.ALERT, row.run, _body(look, now()), now())
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
