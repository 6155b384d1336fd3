"""The privacy budget of an epoch, as numbers or as an accountant of Opacus holds it.

Nothing of Opacus is imported: an accountant is known by its methods.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
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
        Of a mapping what it states, whatever that is: a number that came out wrong ends no
        training. What verification will not take as a budget is said in a warning line, once.
        Of a pair ``accountant`` (rdp, prv, gdp), ``delta``, ``epsilon`` and ``history``: a list of
        ``noise_multiplier``, ``sample_rate`` and ``steps``. Where the accountant has no epsilon it
        is None, with the ``problem``.

    Raises:
        InputError: Neither; no pair of such an accountant and a delta between 0 and 1; a value
            without a JSON form.
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
    history: list[Json] = []
    fields: dict[str, Json] = {"accountant": type(accountant).__name__, "delta": delta}
    try:
        fields["accountant"] = str(accountant.mechanism())
        history = [
            {"noise_multiplier": float(noise), "sample_rate": float(rate), "steps": int(steps)}
            for noise, rate, steps in accountant.history
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the orders it tries, at each epoch
            epsilon = float(accountant.get_epsilon(delta=delta)) if history else 0.0
        if math.isnan(epsilon):
            fields |= {"epsilon": None, "problem": "the accountant's epsilon is NaN"}
        else:
            fields["epsilon"] = normalise(max(epsilon, 0.0))  # a bound below 0 says no more than 0
    # An accountant may raise anything of its numerics, and training goes on.
    except Exception as error:  # noqa: BLE001  whatever it is must not reach the caller
        fields |= {"epsilon": None, "problem": f"{type(error).__name__}: {error}"[:200]}
    if "problem" in fields:
        log.warning("the accountant has no epsilon", problem=fields["problem"])
    return {**fields, "history": history}


def _of_mapping(privacy: Mapping[Any, Any]) -> dict[str, Json]:
    plain = normalise(privacy, "privacy", 1)
    assert isinstance(plain, dict)
    if "problem" not in plain:  # as an accountant's is stated here, and said
        for doubt in _doubts(plain):
            _warn(doubt)
    return plain


def _doubts(plain: Mapping[str, Json]) -> Iterator[str]:
    """What keeps verification from taking a mapping as a budget, or what it may not mean."""
    for name in plain:
        near = [] if name in _READ else get_close_matches(name.lower(), _READ, 1, 0.8)
        if near:
            yield f"privacy: found the key {name[:40]!r}, expected {near[0]!r}"
    for name, expected, below in (
        ("epsilon", "a finite number from 0", math.inf),
        ("delta", "a number from 0 to below 1", 1.0),
    ):
        found = plain.get(name)
        if name not in plain:
            yield f"privacy: found no {name}, expected {expected}"
        elif type(found) not in (int, float) or not 0 <= found < below:  # type: ignore[operator]
            yield f"privacy.{name}: found {found!r:.40}, expected {expected}"


@lru_cache(64)
def _warn(doubt: str) -> None:
    """One line, not one an epoch."""
    log.warning("a privacy budget is recorded as it was given", problem=doubt)
