"""Runs verified again, one at a time, and an alert where one comes out otherwise than before.

Life of a verification: it is due ``verification.every`` behind the run's seal; whoever takes it
puts it off by a lease, so that nobody else does, and one that died has it taken again; the run is
verified on the networks; how that came out is appended to the ledger and written with the alert,
in one transaction, in which its attestation (:mod:`provenance.watch.attest`) and the next
verification are due, and once a day the head itself. A network that does not answer says nothing of
the run: another try is due.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Final
from uuid import UUID, uuid4

from provenance.anchor.outbox import ACTIVE, ceiling
from provenance.app.report import AGAIN, claim, unreachable
from provenance.app.verify import verify_run
from provenance.errors import FormatError, IntegrityError
from provenance.formats.tlog.outcome import Outcome
from provenance.ledger.seal import SealPolicy, sign_grown
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import AnchorState, Work
from provenance.settings import Settings
from provenance.verify.catalogue import RECORDS, Status
from provenance.verify.report import VerificationReport

LEASE_S: Final = 300.0
DAY_S: Final = 86400.0
"""Outcomes alone make no head due sooner behind the one before: an anchor costs."""


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


def verify_next(
    settings: Settings, store: LedgerStore, policy: SealPolicy, now: Callable[[], float]
) -> Look | None:
    """Verify the run that has waited longest; None where none is due.

    Raises:
        StoreUnavailable, ConfigError, MissingExtraError
        LedgerForkError: The ledger's guard refuses to sign.
    """
    every = settings.verification.every_s
    if every is None:
        return None
    longest = max(every, *(each.verify_every_s or 0.0 for each in settings.teams.values()), 0.0)
    at, horizon = now(), max(longest, AGAIN.cap_s) + LEASE_S
    row = claim(store, lambda tx: tx.due_work(Work.VERIFICATION, at, horizon), at, LEASE_S)
    if row is None:
        return None
    with store.snapshot() as tx:
        every = every_of(settings, tx, row.run) or every
    report, finding = _verify(settings, row.run)
    after = _word(report)
    look = Look(row.run, row.told, after, finding)
    with policy.transaction(store, row.run) as tx:
        if after is None:
            tx.save_work(replace(row, next_attempt_at=now() + ceiling(row.attempts, AGAIN)))
            return look
        if look.changed and settings.verification.webhook is not None:
            tx.add_work(Work.ALERT, row.run, now(), told=_body(look, now()))
        _append(tx, row.run, after, report, policy, now(), every, attests(settings))
        tx.save_work(replace(row, told=after, attempts=0, next_attempt_at=now() + every))
    return look


def attests(settings: Settings) -> bool:
    """Whether the workers attest each outcome: there is a contract, and a verifier's key."""
    on_chain = settings.verification.on_chain
    return on_chain is not None and on_chain.private_key_file is not None


def every_of(settings: Settings, tx: LedgerTx, run: UUID) -> float | None:
    """The interval of a run's team, or of all; seconds. None where runs are not verified again."""
    team = settings.teams.get(tx.teams_of([run]).get(run) or "")
    own = None if team is None else team.verify_every_s
    return own or settings.verification.every_s


def _verify(settings: Settings, run: UUID) -> tuple[VerificationReport | None, str | None]:
    """The report, None where the run cannot be read, and the first finding."""
    try:
        report = verify_run(settings, str(run))
    except IntegrityError as error:
        return None, str(error)
    if report.findings:
        first = report.findings[0]
        return report, f"({first.check}) {first.subject}: {first.problem}"
    return report, None


def _word(report: VerificationReport | None) -> str | None:
    """How a run comes out; None where a network did not answer."""
    if report is None:
        return "failed"
    return None if not report.findings and unreachable(report) else report.outcome


def _append(
    tx: LedgerTx,
    run: UUID,
    word: str,
    report: VerificationReport | None,
    policy: SealPolicy,
    now: float,
    every: float,
    attested: bool,
) -> None:
    """Append the outcome to the ledger, unless another worker told the same within ``every``."""
    before, seals = tx.outcomes(run), tx.entries(run)
    if not seals:
        return
    if before:
        with suppress(FormatError):  # `provenance fsck` names it
            last = Outcome.decode(before[-1].document)
            if last.outcome == word and now - last.at < every - LEASE_S:
                return
    failed = {RECORDS} if report is None else set[int]()
    heights: dict[str, int | None] = {}
    if report is not None:
        failed = {r.check.number for r in report.checks if r.status is Status.FAILED}
        for name, checks in report.networks.items():
            heights[name] = max((c.height for c in checks.values() if c.height), default=None)
    outcome = Outcome(
        ledger=policy.signer.verifier.vkey,
        run=run,
        root=seals[-1].root,
        number=len(before) + 1,
        outcome=word,
        failed=tuple(sorted(failed)),
        networks=heights,
        at=int(now),
        software=f"ml-provenance {version('ml-provenance')}",
    )
    document = outcome.encode()
    index = tx.append_outcome(run, outcome.number, document, now)
    size = sign_grown(tx, index, outcome.digest(), policy, now)
    if size is not None:
        _anchor(tx, policy.networks, size, now, max(every, DAY_S))
    if attested and tx.most_tried(Work.ATTESTATION, run) is None:  # one that waits takes this one
        tx.add_work(Work.ATTESTATION, run, now)


def _anchor(tx: LedgerTx, networks: Sequence[str], size: int, now: float, wait_s: float) -> None:
    """Make a head due on each network whose newest anchor is of a head signed ``wait_s`` ago; on
    none without an anchor, which no run asked for."""
    for network in networks:
        last = tx.head(tx.reach(network, ACTIVE | {AnchorState.FINAL}))
        if last is not None and now - last.created_at >= wait_s:
            tx.add_anchor(network, size, now)


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
