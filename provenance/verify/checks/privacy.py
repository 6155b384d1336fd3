"""Check (12): the privacy budgets that epochs state."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, groupby
from typing import Final, NamedTuple

from provenance.errors import TooLargeError
from provenance.formats.record import Kind, Record
from provenance.formats.run_tree.ranks import stretches
from provenance.proofs.renyi import RenyiAccountant, Steps
from provenance.verify.catalogue import PRIVACY, PROVED
from provenance.verify.findings import Findings, counted

_SLACK: Final = 0.02
"""By how much epsilon may fall where an accountant approximates it: Opacus' PRV accountant is
asked for 0.01 either way."""
_TOLERANCE: Final = 1e-6
_NO_BOUND: Final = 0.5
"""The delta from which a budget is said to bound little."""
_POINT: Final = re.compile("0[23][0-9a-f]{64}")
HIDDEN: Final = (
    "What an epsilon that is hidden is, and that it never fell: a commitment stands for it, and "
    "proofs alone (14) say more."
)


class _Budget(NamedTuple):
    path: str
    producer: bytes
    ts: str
    epoch: int
    epsilon: float | None
    delta: float | None
    accountant: str
    history: list[Steps] | None
    hidden: bool


_Highest = Mapping[str, tuple[_Budget, ...]]


class _Spent(NamedTuple):
    """What was stated so far.

    Attributes:
        listed: The newest budget that lists its steps.
        newest: The newest budget with an epsilon.
        highest: By accountant, by rising delta, of falling epsilon: no other can be fallen below.
    """

    listed: _Budget | None
    newest: _Budget | None
    highest: _Highest


def check_privacy(records: Mapping[str, Record], findings: Findings) -> list[str]:
    """Report budgets that cannot be, budgets that shrink, and an epsilon that its own history of
    steps does not give; say which bound nothing, which hide their epsilon and what is proved of it,
    and which could not be checked; what is not checked about hidden ones.

    Args:
        records: By path.
    """
    tracked: dict[int, set[int]] = {}
    for record in records.values():
        if record.kind.is_epoch:
            tracked.setdefault(record.rank, set()).add(record.epoch or 0)
    ranks = {
        rank: [[_read(path, record, findings) for path, record in own] for own in processes]
        for rank, processes in budgets(records).items()
    }
    withheld = sum(r.withheld and r.kind is Kind.PRIVACY for r in findings.evidence.records)
    if withheld:
        findings.unchecked(PRIVACY, f"withheld budgets: {withheld}")
    elif not ranks:
        findings.skip(PRIVACY, "no privacy budget was recorded")
    accountant, count, recomputed, hidden = RenyiAccountant(), 0, 0, list[_Budget]()
    noted: dict[str, tuple[_Budget, str]] = {}
    unclear: dict[str, list[str]] = {}
    for rank, processes in ranks.items():
        if not withheld:
            upto = max(budget.epoch for budget in chain.from_iterable(processes))
            _behind(rank, upto, tracked[rank], findings)
        last = _compare(rank, processes, findings)
        for budget in chain.from_iterable(processes):
            count += 1
            problem = _unclear(budget)
            reason = None if budget.hidden else _not_recomputed(budget)
            if budget.hidden:
                hidden.append(budget)
            if reason is None and problem is None and budget.epsilon is not None:
                try:
                    differs = _recompute(budget, budget.epsilon, accountant)
                    recomputed += differs is None
                    if differs is not None and budget.accountant:
                        findings.fail(PRIVACY, budget.path, differs, path=budget.path)
                    elif differs is not None:
                        noted["unnamed"] = budget, f"names no accountant, and {differs} by rdp"
                except TooLargeError as error:
                    if budget.accountant:
                        problem = str(error)
                    else:
                        reason = str(error)
            if budget.delta is not None and budget.delta >= _NO_BOUND:
                likely = f"its delta is {budget.delta:g}: with that probability nothing is bounded"
                noted["delta"] = budget, likely
            if reason is not None:
                noted[reason] = budget, f"epsilon was not recomputed: {reason}"
            if problem is not None:
                unclear.setdefault(problem, []).append(budget.path)
        _results(last, records, findings)
    for problem, paths in unclear.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        findings.unchecked(PRIVACY, f"{problem}: {paths[0]}{more}")
    if hidden:
        hiding = {budget.path for budget in hidden}
        proved = [
            notice.problem
            for notice in findings.notices
            if notice.check == PROVED and notice.path in hiding
            if notice.problem.startswith("epsilon at ")
        ]
        line = f"epsilon is hidden behind a commitment in {counted(len(hidden), 'budget')}: "
        line += "; ".join(proved) or "no proof about it is here"
        noted["hidden"] = hidden[-1], line
    for newest, line in noted.values():
        findings.notice(PRIVACY, newest.path, line, newest.path)
    stated = counted(count, "budget") + (f", {len(hidden)} with a hidden epsilon" * bool(hidden))
    done = f"{stated}, {recomputed} recomputed from steps" if recomputed else ""
    findings.count(PRIVACY, done or f"none recomputed from steps: {stated}")
    if hidden and len(hidden) == count:
        findings.skip(PRIVACY, f"no epsilon to look at: {stated}")
    return [HIDDEN] if hidden else []


def budgets(records: Mapping[str, Record]) -> dict[int, list[list[tuple[str, Record]]]]:
    """Of each rank, of each of its processes the budgets that are compared: path and record, in
    order."""
    ranks: dict[int, dict[bytes, list[tuple[str, Record]]]] = {}
    for path, record in sorted(records.items(), key=lambda item: item[1].order):
        if record.kind is Kind.PRIVACY:
            own = ranks.setdefault(record.rank, {}).setdefault(record.producer, [])
            own.append((path, record))
    return {rank: list(processes.values()) for rank, processes in sorted(ranks.items())}


def _read(path: str, record: Record, findings: Findings) -> _Budget:
    stated = record.body.get("privacy")
    fields = stated if isinstance(stated, dict) else {}

    def number(name: str, good: str, low: float, high: float) -> float | None:
        value = fields.get(name)
        if value in (None, "NaN"):  # an accountant that overflows: not known
            return None
        found = _number(value)
        if found is None or not low <= found <= high:
            shown = f"{value!r:.40}"
            findings.fail(PRIVACY, path, f"states {name} {shown}, expected {good}", path=path)
            return None
        return found

    accountant = str(fields.get("accountant") or "").strip()[:20].lower()
    # By hand, delta 0 is pure differential privacy; no accountant of DP-SGD has it.
    low = math.ulp(0.0) if accountant else 0.0
    epsilon = number("epsilon", "0 or more", 0.0, math.inf)
    delta = number("delta", "a number from 0 to below 1", low, math.nextafter(1.0, 0.0))
    history = fields.get("history")
    steps = _steps(history) if isinstance(history, list) else None
    if steps is None and history is not None:
        expected = "lists noise_multiplier from 0, sample_rate from 0 to 1, steps from 1"
        findings.fail(PRIVACY, path, f"states a history that is none: one {expected}", path=path)
    hidden = "epsilon" not in fields and _is_committed(record.body.get("commitments"))
    of_epoch = (path, record.producer, record.ts, record.epoch or 0)
    return _Budget(*of_epoch, epsilon, delta, accountant, steps, hidden)


def _is_committed(commitments: object) -> bool:
    """Whether a commitment stands for the epsilon; without a point nothing can be proved of it."""
    stated = commitments.get("epsilon") if isinstance(commitments, Mapping) else None
    point = stated.get("point") if isinstance(stated, Mapping) else None
    return isinstance(point, str) and _POINT.fullmatch(point) is not None


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


def _compare(rank: int, processes: Collection[Sequence[_Budget]], findings: Findings) -> _Budget:
    """Each budget with those that its process goes on from: its own of the epochs before, and of
    the epochs before its first what the processes before it stated. The last one of all.

    Args:
        processes: Of a rank, in order, each with one budget at least.
    """
    line: list[tuple[_Budget, _Spent]] = []
    beside = set[int]()
    for budgets in processes:
        in_order = sorted(budgets, key=lambda budget: budget.epoch)
        passed = set[int]()
        while line and line[-1][0].epoch >= in_order[0].epoch:
            passed.add(line.pop()[0].epoch)
        if passed:
            first, last = min(passed), max(passed)
            beside |= passed | {b.epoch for b in in_order if first <= b.epoch <= last}
        for budget in in_order:
            line.append(
                (budget, _add(line[-1][1] if line else _Spent(None, None, {}), budget, findings))
            )
    spent = [b.epsilon for b in chain.from_iterable(processes) if b.epoch in beside and b.epsilon]
    upto = f", up to epsilon {max(spent):g}" if spent else ""
    for epochs, _ in stretches((epoch, "") for epoch in sorted(beside)):
        both = f"several processes spent a budget there{upto}, and none states the sum"
        findings.notice(PRIVACY, f"rank {rank}, {epochs}", both)
    _at_once(rank, processes, findings)
    return line[-1][0]


def _at_once(rank: int, processes: Iterable[Sequence[_Budget]], findings: Findings) -> None:
    """Leave open an epsilon below that of an earlier epoch by a process that ran at the same time,
    by their clocks: neither went on from the other, so it fell, or both are spent."""
    together: list[list[_Budget]] = []
    upto = ""
    for budgets in processes:
        if min(budget.ts for budget in budgets) > upto:
            together.append([])
        together[-1] += budgets
        upto = max(upto, *(budget.ts for budget in budgets))
    for budgets in together:
        highest: _Highest = {}
        budgets.sort(key=lambda budget: budget.epoch)
        for _, same in groupby(budgets, lambda budget: budget.epoch):
            of_epoch = list(same)
            for budget in of_epoch:
                earlier = _greatest(highest, budget.accountant, budget)
                if earlier and earlier.producer != budget.producer and _fell(earlier, budget):
                    both = f"epsilon {earlier.epsilon:g} at epoch {earlier.epoch}, then "
                    both += f"{budget.epsilon:g} at epoch {budget.epoch}"
                    findings.unchecked(PRIVACY, f"rank {rank}, processes at once: {both}")
                    return
            for budget in of_epoch:
                highest = _with(highest, budget)


def _add(spent: _Spent, budget: _Budget, findings: Findings) -> _Spent:
    """One more budget, compared with the newest one before it that lists its steps, and with the
    greatest finite epsilon before it by the same accountant, at its delta or a higher one; where
    the accountant changed, by that before. Where delta rose, a lower epsilon is said to be one."""
    listed, newest = spent.listed, spent.newest
    if budget.history is not None:
        if listed is not None:
            _compare_steps(listed, budget, findings)
        listed = budget
    for name in {budget.accountant, newest.accountant if newest else budget.accountant}:
        earlier = _greatest(spent.highest, name, budget)
        if earlier is None or not _fell(earlier, budget):
            continue
        problem = f"states epsilon {budget.epsilon:g}, epoch {earlier.epoch} {earlier.epsilon:g}"
        if name == budget.accountant:
            problem += ": what is spent stays spent"
            findings.fail(PRIVACY, budget.path, problem, path=budget.path)
        else:
            problem += f": the accountant changed, from {name or 'none'} to "
            problem += budget.accountant or "none"
            findings.notice(PRIVACY, budget.path, problem, budget.path)
    lowest = next(iter(spent.highest.get(budget.accountant, ())), None)
    delta, before = budget.delta or 0.0, (newest and newest.delta) or 0.0
    if lowest and max(before, lowest.delta or 0.0) < delta and _fell(lowest, budget):
        problem = f"states epsilon {budget.epsilon:g}, epoch {lowest.epoch} {lowest.epsilon:g}"
        problem += f": delta changed, from {lowest.delta or 0.0:g} to {delta:g}"
        findings.notice(PRIVACY, budget.path, problem, budget.path)
    newest = newest if budget.epsilon is None else budget
    return _Spent(listed, newest, _with(spent.highest, budget))


def _greatest(highest: _Highest, accountant: str, budget: _Budget) -> _Budget | None:
    """That of an accountant with the greatest epsilon, at the budget's delta or a higher one."""
    own = highest.get(accountant, ())
    at = _place(own, budget)
    return own[at] if at < len(own) else None


def _with(highest: _Highest, budget: _Budget) -> _Highest:
    own = list(highest.get(budget.accountant, ()))
    at = low = _place(own, budget)
    epsilon = budget.epsilon
    if epsilon is None or math.isinf(epsilon):  # nothing can be compared with it
        return highest
    if at < len(own) and (own[at].epsilon or 0.0) >= epsilon:
        return highest
    while low and (own[low - 1].epsilon or 0.0) <= epsilon:
        low -= 1
    same = at < len(own) and own[at].delta == budget.delta
    own[low : at + same] = [budget]
    return {**highest, budget.accountant: tuple(own)}


def _place(own: Sequence[_Budget], budget: _Budget) -> int:
    return bisect_left(own, budget.delta or 0.0, key=lambda other: other.delta or 0.0)


def _fell(earlier: _Budget, later: _Budget) -> bool:
    """Whether epsilon is below that of an earlier epoch by more than an accountant's error."""
    before = earlier.epsilon or 0.0
    slack = _TOLERANCE * before if later.accountant == "rdp" else _SLACK
    return later.epsilon is not None and later.epsilon < before - slack


def _compare_steps(earlier: _Budget, later: _Budget, findings: Findings) -> None:
    since = f"epoch {earlier.epoch}"
    before, now = (sum(s for *_, s in each.history or ()) for each in (earlier, later))
    if now < before:
        problem = f"states {now} steps, {since} {before}: steps that were taken stay taken"
        findings.fail(PRIVACY, later.path, problem, path=later.path)
    elif not _goes_on(earlier.history or [], later.history or []):
        problem = f"states other steps for what {since} states"
        findings.fail(PRIVACY, later.path, problem, path=later.path)


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


def _unclear(budget: _Budget) -> str | None:
    """Why a budget says nothing that could be checked."""
    if budget.epsilon is None:
        return None if budget.hidden else "no epsilon"
    return "epsilon is infinite, which bounds nothing" if math.isinf(budget.epsilon) else None


def _not_recomputed(budget: _Budget) -> str | None:
    if budget.delta is None:
        return "it is stated without its delta"
    if budget.accountant not in ("", "rdp"):
        return f"the accountant {budget.accountant!r} is another"
    if budget.history is None:
        return "it is stated without the steps that it is of"
    return None if budget.delta else "its delta is 0, for which rdp has none"


def _recompute(budget: _Budget, stated: float, accountant: RenyiAccountant) -> str | None:
    """How epsilon differs from what the steps give; TooLargeError where that takes too long."""
    epsilon = accountant.epsilon(budget.history or (), budget.delta or 0.0)
    if math.isclose(epsilon, stated, rel_tol=_TOLERANCE, abs_tol=1e-9):
        return None
    return f"states epsilon {stated:g}, its steps give {epsilon:g}"


def _behind(rank: int, upto: int, tracked: Iterable[int], findings: Findings) -> None:
    """Name the epochs of a rank behind its last budget: no later one counts what they spent."""
    line = f"no budget stated, the last is of epoch {upto}"
    behind = sorted(epoch for epoch in tracked if epoch > upto)
    for epochs, _ in stretches((epoch, "") for epoch in behind):
        findings.notice(PRIVACY, f"rank {rank}, {epochs}", line)


def _results(last: _Budget, records: Mapping[str, Record], findings: Findings) -> None:
    for path, record in records.items():
        results = record.body.get("results") if record.kind is Kind.RESULTS else None
        stated = _number(results.get("epsilon")) if isinstance(results, dict) else None
        if stated is not None and last.epsilon is not None and stated != last.epsilon:
            problem = f"the results state epsilon {stated:g}, the last epoch {last.epsilon:g}"
            findings.notice(PRIVACY, path, problem, path)
