"""Full jitter: uniform below a ceiling that doubles up to a cap."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from provenance.anchor.outbox import ceiling, delay
from provenance.settings import RetrySettings

SETTINGS = st.builds(
    RetrySettings,
    base_s=st.floats(0.01, 100),
    cap_s=st.floats(0.01, 10_000),
)
UNIFORM = st.floats(0, 1, exclude_max=True)


@given(st.integers(-5, 10_000), SETTINGS, UNIFORM)
def test_a_delay_is_finite_not_negative_and_below_the_cap(
    attempt: int, retry: RetrySettings, drawn: float
) -> None:
    found = delay(attempt, retry, lambda: drawn)
    assert 0 <= found <= retry.cap_s
    assert math.isfinite(found)


@given(st.integers(1, 200), SETTINGS)
def test_the_ceiling_never_falls(attempt: int, retry: RetrySettings) -> None:
    assert ceiling(attempt, retry) <= ceiling(attempt + 1, retry)


def test_values_worked_out_by_hand() -> None:
    retry = RetrySettings(base_s=2.0, cap_s=300.0)
    assert [ceiling(n, retry) for n in (1, 2, 3, 8, 9)] == [2.0, 4.0, 8.0, 256.0, 300.0]
    assert delay(3, retry, lambda: 0.25) == 2.0
    assert delay(3, retry, lambda: 0.0) == 0.0


def test_one_draw_per_delay() -> None:
    drawn = iter([0.5])
    assert delay(1, RetrySettings(base_s=4.0), lambda: next(drawn)) == 2.0
    assert next(drawn, None) is None
