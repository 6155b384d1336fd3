"""How long documents and logs must be kept, as days that follow from an article.

A period of months or years ends with the day of the same number, or the last of its month where
there is none, and on a Saturday or Sunday with the next working day: Regulation (EEC, Euratom)
No 1182/71, Article 3(2)(c) and (4). Public holidays, which differ by Member State, are left out.
"""

from __future__ import annotations

import calendar
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.record import Record
from provenance.verify.report import VerificationReport

PERIODS: Final = (
    "Regulation (EEC, Euratom) No 1182/71, Article 3(2)(c) and (4), without public holidays"
)


@dataclass(frozen=True, slots=True)
class Retention:
    """``until`` is the last day, or None where it cannot be told; ``basis`` says why."""

    article: str
    what: str
    until: date | None
    basis: str


def record_times(evidence: RunEvidence) -> list[str]:
    """``ts`` of the records that decode, in order: claims of the trainer's clock."""
    return sorted(r.decoded.ts for r in evidence.records if isinstance(r.decoded, Record))


def last_day(start: date, months: int) -> date:
    """The last day of a period of months that begins with an event on a day; ``ValueError`` beyond
    the year 9999."""
    years, month = divmod(start.month - 1 + months, 12)
    year = start.year + years
    last = date(year, month + 1, min(start.day, calendar.monthrange(year, month + 1)[1]))
    return last + timedelta(7 - last.weekday() if last.weekday() > 4 else 0)


def ai_act(report: VerificationReport, placed_on: date | None) -> tuple[Retention, ...]:
    """Articles 18, 19 and 26(6) of Regulation (EU) 2024/1689."""
    documents = "technical documentation (Article 18(1)): this report is a part of it"
    if placed_on is None:
        why = "10 years after it was placed on the market or put into service: no day was given"
        kept = Retention("Art. 18", documents, None, f"{why} (--placed-on)")
    else:
        until = last_day(placed_on, 120)
        basis = f"10 years after {placed_on}, as given (--placed-on); {PERIODS}"
        kept = Retention("Art. 18", documents, until, basis)
    times = record_times(report.evidence)
    logs = "logs, as far as the run's records are such: at least, and longer where the purpose asks"
    last, until_logs = date.fromisoformat(times[-1][:10]) if times else None, None
    with suppress(ValueError):  # a clock may say anything
        until_logs = None if last is None else last_day(last, 6)
    basis = f"6 months after the last record, {last} by the trainer's clock; {PERIODS}"
    return (
        kept,
        Retention("Art. 19", f"{logs} (provider)", until_logs, basis),
        Retention("Art. 26(6)", f"{logs} (deployer)", until_logs, basis),
    )
