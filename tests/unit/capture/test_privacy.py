"""What an epoch's privacy budget may be given as."""

from __future__ import annotations

from typing import Any

import pytest

from provenance.capture.privacy import privacy_fields
from provenance.errors import InputError


class Accountant:
    """As Opacus' are, without it."""

    def __init__(self, epsilon: float | Exception = 2.5) -> None:
        self.history = [(1.1, 0.125, 8)]
        self.epsilon = epsilon

    def get_epsilon(self, delta: float) -> float:
        if isinstance(self.epsilon, Exception):
            raise self.epsilon
        return self.epsilon

    def mechanism(self) -> str:
        return "prv"


class Engine:
    def __init__(self) -> None:
        self.accountant = Accountant()


STEPS = [{"noise_multiplier": 1.1, "sample_rate": 0.125, "steps": 8}]
STATED = {"accountant": "prv", "delta": 1e-5, "epsilon": 2.5, "history": STEPS}


@pytest.mark.parametrize("holder", [Engine(), Accountant()])
def test_an_engine_or_accountant_with_its_delta_states_its_steps(holder: object) -> None:
    assert privacy_fields((holder, 1e-5)) == STATED


def test_a_mapping_is_stated_as_it_is() -> None:
    assert privacy_fields({"epsilon": float("inf"), "delta": 1e-5}) == {
        "epsilon": "Infinity",
        "delta": 1e-5,
    }
    assert privacy_fields(None) is None


def test_a_bound_below_zero_is_zero_and_no_step_spends_nothing() -> None:
    assert (privacy_fields((Accountant(-0.1), 0.5)) or {})["epsilon"] == 0.0
    none = Accountant(IndexError("list index out of range"))
    none.history = []
    assert (privacy_fields((none, 0.5)) or {})["epsilon"] == 0.0


def test_an_accountant_that_fails_leaves_its_steps_and_says_so() -> None:
    fields = privacy_fields((Accountant(RuntimeError("domain too small")), 1e-5)) or {}
    assert fields["epsilon"] is None
    assert fields["problem"] == "RuntimeError: domain too small"
    assert fields["history"] == STEPS


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (Engine(), "found Engine, expected a mapping, or"),
        (1.5, "found float"),
        ((Engine(),), "found tuple"),
        ((object(), 1e-5), "found a pair with object"),
        ((Engine(), 1), "found delta 1, expected a number between 0 and 1"),
        ((Engine(), 0.0), "found delta 0.0"),
        ((Engine(), "1e-5"), "found delta '1e-5'"),
    ],
)
def test_what_is_neither_is_refused_in_one_line(given: Any, found: str) -> None:
    with pytest.raises(InputError, match="privacy: ") as refused:
        privacy_fields(given)
    assert found in str(refused.value)
    assert "\n" not in str(refused.value)
