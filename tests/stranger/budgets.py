"""Privacy budgets: section 11, step 12.

The divergence is integrated numerically from the paper's definition, not summed as a series.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

ORDERS = [1 + tenth / 10 for tenth in range(1, 100)] + list(range(12, 64))


def divergence(noise: float, rate: float, order: float) -> float:
    """Rényi divergence of one step: log of E[((1 - q) + q exp((2z - 1) / 2s^2))^a], z from N(0, s),
    by (a - 1)."""
    if rate == 0:
        return 0.0
    if noise == 0:
        return math.inf
    step = min(noise, noise**2) / 12
    first, count = -14 * noise, math.ceil((order + 28 * noise) / step)
    logs = []
    for at in range(count + 1):
        z = first + at * step
        shift = (2 * z - 1) / (2 * noise**2) + math.log(rate)
        rest = math.log1p(-rate) if rate < 1 else -math.inf
        top = max(shift, rest)
        both = top + math.log(math.exp(shift - top) + math.exp(rest - top))
        logs.append(order * both - z * z / (2 * noise**2))
    top = max(logs)
    total = math.fsum(math.exp(log - top) for log in logs) * step
    return (top + math.log(total / (noise * math.sqrt(2 * math.pi)))) / (order - 1)


def epsilon_of(history: list[dict[str, Any]], delta: float) -> float:
    best = math.inf if history else 0.0
    for a in ORDERS if history else ():
        r = sum(
            each["steps"] * divergence(each["noise_multiplier"], each["sample_rate"], a)
            for each in history
        )
        best = min(best, r - (math.log(delta) + math.log(a)) / (a - 1) + math.log((a - 1) / a))
    return max(best, 0.0)


def takes_long(history: list[dict[str, Any]]) -> bool:
    noises = {each["noise_multiplier"] for each in history}
    return len(history) > 20 or any(noise and not 0.2 <= noise <= 100 for noise in noises)


def goes_on(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> bool:
    if not old:
        return True
    same = new[: len(old)]
    last = {**same[-1], "steps": old[-1]["steps"]} if same else None
    return [*same[:-1], last] == old and new[len(old) - 1]["steps"] >= old[-1]["steps"]


def fell(budget: dict[str, Any], before: list[dict[str, Any]]) -> bool:
    """Whether epsilon is below a finite one before, by the same accountant at no lower delta."""
    for other in before:
        slack = 1e-6 * float(other["epsilon"]) if by(budget) == "rdp" else 0.02
        same = by(other) == by(budget) and (other.get("delta") or 0) >= (budget.get("delta") or 0)
        spent = float(other["epsilon"])
        if same and spent < math.inf and float(budget["epsilon"]) < spent - slack:
            return True
    return False


def by(budget: dict[str, Any]) -> str:
    return str(budget.get("accountant") or "").strip().lower()


def budget_problem(budget: dict[str, Any], before: list[dict[str, Any]]) -> str | None:
    """Why a budget cannot be, by itself or behind others."""
    epsilon, delta = float(budget["epsilon"]), budget.get("delta")
    if epsilon < 0:
        return "no epsilon that can be"
    if delta is not None and (not 0 <= delta < 1 or (by(budget) and not delta)):
        return "no delta that can be"
    history = budget.get("history")
    listed = [other["history"] for other in before if other.get("history") is not None]
    if history is not None and listed and not goes_on(listed[-1], history):
        return "other steps than before"
    if fell(budget, before):
        return "what is spent stays spent"
    if not delta or epsilon == math.inf:
        return None
    if by(budget) == "rdp" and history is not None and not takes_long(history):
        own = epsilon_of(history, delta)
        return None if math.isclose(own, epsilon, rel_tol=2e-6) else f"its steps give {own}"
    return None


def at_once(processes: list[list[tuple[dict[str, Any], dict[str, Any]]]]) -> bool:
    """Whether an epsilon is below that of an earlier epoch by a process that ran meanwhile."""
    together: list[list[tuple[dict[str, Any], dict[str, Any]]]] = []
    upto = ""
    for own in processes:
        if min(record["ts"] for record, _ in own) > upto:
            together.append([])
        together[-1] += own
        upto = max(upto, *(record["ts"] for record, _ in own))
    return any(
        fell(budget, [
            other for earlier, other in budgets
            if earlier["epoch"] < record["epoch"] and earlier["producer"] != record["producer"]
        ])
        for budgets in together
        for record, budget in budgets
    )  # fmt: skip


def check_budgets(
    records: list[dict[str, Any]], bodies: dict[str, Any]
) -> Iterator[tuple[str, bool]]:
    """Lines, and whether each is a problem or something that is left open."""
    ranks: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for record in sorted(records, key=lambda r: (r["ts"], r["producer"], r["seq"])):
        if record["kind"] == "privacy":
            processes = ranks.setdefault(record["rank"], {})
            processes.setdefault(record["producer"], []).append(record)
    for rank, processes in ranks.items():
        line: list[tuple[int, dict[str, Any]]] = []
        stated: list[list[tuple[dict[str, Any], dict[str, Any]]]] = []
        for own in processes.values():
            own.sort(key=lambda record: record["epoch"])
            line = [item for item in line if item[0] < own[0]["epoch"]]
            known: list[tuple[dict[str, Any], dict[str, Any]]] = []
            for record in own:
                name, epoch = record["path"], record["epoch"]
                budget = bodies.get(name, {}).get("privacy")
                budget = budget if isinstance(budget, dict) else {}
                unknown = budget.get("epsilon") in (None, "NaN")
                if unknown or float(budget["epsilon"]) == math.inf:
                    yield f"{name}: a budget that bounds nothing, or withheld", False
                if unknown:
                    continue
                if by(budget) == "rdp" and takes_long(budget.get("history") or []):
                    yield f"{name}: epsilon was not recomputed", False
                if problem := budget_problem(budget, [other for _, other in line]):
                    yield f"{name}: {problem}", True
                line.append((epoch, budget))
                known.append((record, budget))
            stated += [known] if known else []
        if at_once(stated):
            yield f"rank {rank}: processes at once, the later epoch with less epsilon", False
