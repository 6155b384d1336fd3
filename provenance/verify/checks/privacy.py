"""Check (12): the privacy budgets that epochs state."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from provenance.errors import TooLargeError
from provenance.formats.record import Kind, Record
from provenance.proofs.renyi import RenyiAccountant, Steps
from provenance.verify.catalogue import PRIVACY
from provenance.verify.findings import Findings

_SLACK: Final = 0.02
"""By how much epsilon may fall where an accountant approximates it: Opacus' PRV accountant is
asked for 0.01 either way."""
_TOLERANCE: Final = 1e-6


class _Budget(NamedTuple):
    path: str
    epoch: int
    epsilon: float | None
    delta: float | None
    accountant: str
    history: list[Steps] | None


def check_privacy(records: Mapping[str, Record], findings: Findings) -> None:
    """Report budgets that cannot be, budgets that shrink, and an epsilon that its own history of
    steps does not give.

    Args:
        records: By path.
    """
    ranks: dict[int, dict[int, tuple[str, Record]]] = {}  # of one rank's records the last counts
    for path, record in sorted(records.items(), key=lambda item: item[1].order):
        if record.kind is Kind.PRIVACY and path.startswith("training/"):
            ranks.setdefault(record.rank, {})[record.epoch or 0] = (path, record)
    if not ranks:
        findings.skip(PRIVACY, "no privacy budget was recorded")
        return
    accountant, count, recomputed = RenyiAccountant(), 0, 0
    others: dict[str, _Budget] = {}
    for _, of_rank in sorted(ranks.items()):
        budgets = [_read(path, record, findings) for _, (path, record) in sorted(of_rank.items())]
        _compare(budgets, findings)
        for budget in budgets:
            reason = _recompute(budget, accountant, findings)
            if reason is None:
                recomputed += 1
            else:
                others[reason] = budget
        count += len(budgets)
        _results(budgets[-1], records, findings)
    for reason, newest in others.items():
        findings.notice(PRIVACY, newest.path, f"epsilon was not recomputed: {reason}", newest.path)
    findings.count(PRIVACY, f"{count} budgets, {recomputed} recomputed from their steps")


def _read(path: str, record: Record, findings: Findings) -> _Budget:
    stated = record.body.get("privacy")
    fields = stated if isinstance(stated, dict) else {}

    def number(name: str, good: str, low: float, high: float) -> float | None:
        value = fields.get(name)
        if value is None:
            return None
        found = _number(value)
        if found is None or not low <= found <= high:
            shown = f"{value!r:.40}"
            findings.fail(PRIVACY, path, f"states {name} {shown}, expected {good}", path=path)
            return None
        return found

    accountant = str(fields.get("accountant", ""))[:20]
    # By hand, delta 0 is pure differential privacy; no accountant of DP-SGD has it.
    low = math.ulp(0.0) if accountant else 0.0
    epsilon = number("epsilon", "0 or more", 0.0, math.inf)
    delta = number("delta", "a number from 0 to below 1", low, math.nextafter(1.0, 0.0))
    history = fields.get("history")
    steps = _steps(history) if isinstance(history, list) else None
    if steps is None and history is not None:
        expected = "lists noise_multiplier from 0, sample_rate from 0 to 1, steps from 1"
        findings.fail(PRIVACY, path, f"states a history that is none: one {expected}", path=path)
    return _Budget(path, record.epoch or 0, epsilon, delta, accountant, steps)


def _number(value: object) -> float | None:
    """None where it is no number, or NaN."""
    if value == "Infinity":
        return math.inf
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain else None  # type: ignore[arg-type]  # just looked


def _steps(history: Sequence[object]) -> list[Steps] | None:
    found: list[Steps] = []
    for item in history:
        if not isinstance(item, Mapping):
            return None
        noise, rate = _number(item.get("noise_multiplier")), _number(item.get("sample_rate"))
        steps = item.get("steps")
        if noise is None or rate is None or type(steps) is not int:
            return None
        if noise < 0 or not 0 <= rate <= 1 or steps < 1:
            return None
        found.append((noise, rate, steps))
    return found


def _compare(budgets: Sequence[_Budget], findings: Findings) -> None:
    """Each with the newest one before it that lists its steps, and with the greatest epsilon that
    was stated before, by the same accountant, at its delta or a higher one."""
    listed: _Budget | None = None
    spent: dict[str, list[_Budget]] = {}  # by rising delta, of falling epsilon: no other counts
    for budget in budgets:
        if budget.history is not None:
            if listed is not None:
                _compare_steps(listed, budget, findings)
            listed = budget
        if budget.epsilon is None:
            continue
        highest, delta = spent.setdefault(budget.accountant, []), budget.delta or 0.0
        at = bisect_left(highest, delta, key=lambda other: other.delta or 0.0)
        if at < len(highest):
            _compare_epsilon(highest[at], budget, findings)
        if at == len(highest) or (highest[at].epsilon or 0.0) < budget.epsilon:
            low = at
            while low and (highest[low - 1].epsilon or 0.0) <= budget.epsilon:
                low -= 1
            same = at < len(highest) and (highest[at].delta or 0.0) == delta
            highest[low : at + same] = [budget]


def _compare_steps(earlier: _Budget, later: _Budget, findings: Findings) -> None:
    since = f"epoch {earlier.epoch}"
    before, now = (sum(s for *_, s in each.history or ()) for each in (earlier, later))
    if now < before:
        problem = f"states {now} steps, {since} {before}: steps that were taken stay taken"
        findings.fail(PRIVACY, later.path, problem, path=later.path)
    elif not _goes_on(earlier.history or [], later.history or []):
        problem = f"states other steps for what {since} states"
        findings.fail(PRIVACY, later.path, problem, path=later.path)


def _compare_epsilon(earlier: _Budget, later: _Budget, findings: Findings) -> None:
    before, now = earlier.epsilon or 0.0, later.epsilon or 0.0
    slack = _SLACK if later.accountant != "rdp" else _TOLERANCE * before if before < math.inf else 0
    if now < before - slack:
        problem = f"states epsilon {now:g}, epoch {earlier.epoch} {before:g}: what is spent"
        findings.fail(PRIVACY, later.path, f"{problem} stays spent", path=later.path)


def _goes_on(earlier: list[Steps], later: list[Steps]) -> bool:
    """Whether a history begins with another; of its last entry there may be more steps now."""
    if not earlier:
        return True
    last, same = len(earlier) - 1, later[: len(earlier)]
    return (
        len(same) == len(earlier)
        and same[:last] == earlier[:last]
        and same[last][:2] == earlier[last][:2]
        and same[last][2] >= earlier[last][2]
    )


def _recompute(budget: _Budget, accountant: RenyiAccountant, findings: Findings) -> str | None:
    """Compare epsilon with what the steps give; the reason why that was not done, else None."""
    if budget.history is None or budget.accountant != "rdp":
        by = f"the accountant {budget.accountant!r} is another" if budget.accountant else ""
        return by or "it is stated without the steps that it is of"
    if budget.epsilon is None or not budget.delta:
        return "epsilon or delta is not stated"
    try:
        epsilon = accountant.epsilon(budget.history, budget.delta)
    except TooLargeError as error:
        return str(error)
    if not math.isclose(epsilon, budget.epsilon, rel_tol=_TOLERANCE, abs_tol=1e-9):
        problem = f"states epsilon {budget.epsilon:g}, its steps give {epsilon:g}"
        findings.fail(PRIVACY, budget.path, problem, path=budget.path)
    return None


def _results(last: _Budget, records: Mapping[str, Record], findings: Findings) -> None:
    for path, record in records.items():
        results = record.body.get("results") if record.kind is Kind.RESULTS else None
        stated = _number(results.get("epsilon")) if isinstance(results, dict) else None
        if stated is not None and last.epsilon is not None and stated != last.epsilon:
            problem = f"the results state epsilon {stated:g}, the last epoch {last.epsilon:g}"
            findings.notice(PRIVACY, path, problem, path)
