"""The privacy budget of an epoch, as numbers or as an accountant of Opacus holds it.

Nothing of Opacus is imported: an accountant is known by its methods.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from provenance.errors import InputError
from provenance.formats.record import Json, normalise
from provenance.log import get_logger

log = get_logger("provenance")
_EXPECTED = "expected a mapping, or (a PrivacyEngine or accountant, delta)"


def privacy_fields(privacy: Any) -> dict[str, Json] | None:
    """The body of a privacy record; None of None.

    Args:
        privacy: A mapping such as ``{"epsilon": 1.2, "delta": 1e-5}``, or a pair of an Opacus
            ``PrivacyEngine`` or accountant and the delta to state epsilon for. Delta is never
            chosen here: it says what is promised, and should be far below 1 / len(dataset).

    Returns:
        Of a pair ``accountant`` (rdp, prv, gdp), ``delta``, ``epsilon`` (None where the
        accountant has none, with its ``problem``) and ``history``: a list of
        ``noise_multiplier``, ``sample_rate`` and ``steps``.

    Raises:
        InputError: Neither; a delta that is not between 0 and 1; a value without a JSON form.
    """
    if privacy is None:
        return None
    if isinstance(privacy, Mapping):
        plain = normalise(privacy, "privacy")
        assert isinstance(plain, dict)
        return plain
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
        fields["epsilon"] = normalise(max(epsilon, 0.0))  # a bound below 0 says no more than 0
    # An accountant may raise anything of its numerics, and training goes on.
    except Exception as error:  # noqa: BLE001  whatever it is must not reach the caller
        fields |= {"epsilon": None, "problem": f"{type(error).__name__}: {error}"[:200]}
        log.warning("the accountant has no epsilon", problem=fields["problem"])
    return {**fields, "history": history}
