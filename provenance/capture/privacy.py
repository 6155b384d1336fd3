"""The privacy budget of an epoch, as numbers or as an accountant of Opacus holds it.

Nothing of Opacus is imported: an accountant is known by its methods.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

from provenance.errors import InputError
from provenance.formats.record import Json, normalise
from provenance.log import get_logger

log = get_logger("provenance")
_EXPECTED: Final = "expected a mapping, or (a PrivacyEngine or accountant, delta)"
_READ: Final = ("epsilon", "delta", "accountant", "history", "problem")
"""Keys that verification reads, and ``problem``; others are for people."""


def privacy_fields(privacy: Any) -> dict[str, Json] | None:
    """The body of a privacy record; None of None.

    Args:
        privacy: A mapping with ``epsilon`` (0 or more) and ``delta`` (from 0 to below 1), such as
            ``{"epsilon": 1.2, "delta": 1e-5}``, or a pair of an Opacus
            ``PrivacyEngine`` or accountant and the delta to state epsilon for. Delta is never
            chosen here: it says what is promised, and should be far below 1 / len(dataset).

    Returns:
        Of a pair ``accountant`` (rdp, prv, gdp), ``delta``, ``epsilon`` and ``history``: a list of
        ``noise_multiplier``, ``sample_rate`` and ``steps``. An epsilon that came out as no budget
        (NaN, below 0, an accountant without one) is None, with its ``problem``.

    Raises:
        InputError: Neither; no epsilon or delta, or a key that is nearly one of a budget's; an
            epsilon that is no number, a delta outside of its range; a value without a JSON form.
    """
    if privacy is None:
        return None
    if isinstance(privacy, Mapping):
        return _of_mapping(privacy)
    if not isinstance(privacy, tuple) or len(privacy) != 2:
        raise InputError(f"privacy: found {type(privacy).__name__}, {_EXPECTED}")
    accountant: Any = getattr(privacy[0], "accountant", privacy[0])
    delta = privacy[1]
    if not all(hasattr(accountant, name) for name in ("history", "get_epsilon", "mechanism")):
        raise InputError(f"privacy: found a pair with {type(privacy[0]).__name__}, {_EXPECTED}")
    if not isinstance(delta, float) or not 0 < delta < 1:
        raise InputError(f"privacy: found delta {delta!r}, expected a number between 0 and 1")
    history: list[Json] = [
        {"noise_multiplier": float(noise), "sample_rate": float(rate), "steps": int(steps)}
        for noise, rate, steps in accountant.history
    ]
    fields: dict[str, Json] = {"accountant": str(accountant.mechanism()), "delta": delta}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the orders it tries, at each epoch
            epsilon = float(accountant.get_epsilon(delta=delta)) if history else 0.0
        fields |= _epsilon(max(epsilon, 0.0))  # a bound below 0 says no more than 0
    # An accountant may raise anything of its numerics, and training goes on.
    except Exception as error:  # noqa: BLE001  whatever it is must not reach the caller
        fields |= _no_epsilon(f"{type(error).__name__}: {error}"[:200])
    return {**fields, "history": history}


def _of_mapping(privacy: Mapping[Any, Any]) -> dict[str, Json]:
    plain = normalise(privacy, "privacy", 1)
    assert isinstance(plain, dict)
    for name in plain:
        near = [] if name in _READ else get_close_matches(name.lower(), _READ, 1, 0.8)
        if near:
            raise InputError(f"privacy: found the key {name[:40]!r}, expected {near[0]!r}")
    missing = [name for name in ("epsilon", "delta") if name not in plain]
    if missing:
        found = ", ".join(name[:40] for name in list(plain)[:9]) or "no key"
        raise InputError(f"privacy: found {found}, expected {' and '.join(missing)} too")
    delta = _number(plain["delta"])
    if delta is None or not 0 <= delta < 1:
        found = f"{plain['delta']!r}"[:40]
        raise InputError(f"privacy.delta: found {found}, expected a number from 0 to below 1")
    stated = plain["epsilon"]
    if stated is None and "problem" in plain:  # as an accountant's is stated here
        return plain
    epsilon = _number(stated)
    if epsilon is None:
        raise InputError(f"privacy.epsilon: found {stated!r:.40}, expected a number from 0")
    return {**plain, **_epsilon(epsilon)}


def _number(plain: Json) -> float | None:
    """None where a value is none; NaN and infinities are texts in JSON."""
    if isinstance(plain, bool) or not isinstance(plain, int | float | str):
        return None
    special = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    return special.get(plain) if isinstance(plain, str) else float(plain)


def _epsilon(epsilon: float) -> dict[str, Json]:
    """What a training works out at each epoch does not end it: what is no budget is stated so."""
    if not epsilon >= 0:
        return _no_epsilon(f"found {epsilon:g}, expected a number from 0")
    if math.isinf(epsilon):
        log.warning("privacy.epsilon: found inf, which promises nothing, expected a finite number")
    return {"epsilon": normalise(epsilon)}


def _no_epsilon(problem: str) -> dict[str, Json]:
    log.warning("privacy.epsilon: recorded as unknown", problem=problem)
    return {"epsilon": None, "problem": problem}
