"""Backoff: how long to wait after a failure. Pure; the randomness is handed in.

Full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): the
delay is uniform in ``[0, min(cap, base * 2**(attempt - 1)))``, so that many workers that
failed together do not come back together.
"""

from __future__ import annotations

from collections.abc import Callable

from provenance.settings import RetrySettings

_MAX_EXPONENT = 62


def delay(attempt: int, retry: RetrySettings, random: Callable[[], float]) -> float:
    """Seconds to wait after failure number ``attempt`` (from 1).

    Args:
        random: Uniform in ``[0, 1)``; called once.
    """
    return random() * ceiling(attempt, retry)


def ceiling(attempt: int, retry: RetrySettings) -> float:
    """The longest that :func:`delay` can be, in seconds."""
    exponent = min(max(attempt, 1) - 1, _MAX_EXPONENT)
    return min(retry.cap_s, retry.base_s * float(2**exponent))
