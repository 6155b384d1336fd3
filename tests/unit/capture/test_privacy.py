"""What an epoch's privacy budget may be given as."""

from __future__ import annotations

import math
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


@pytest.mark.parametrize("epsilon", [math.nan, -0.5, -math.inf])
def test_an_epsilon_that_comes_out_as_no_budget_ends_no_training(
    epsilon: float, capsys: pytest.CaptureFixture[str]
) -> None:
    stated = privacy_fields({"epsilon": epsilon, "delta": 0.1, "clipping": 1})
    problem = f"found {epsilon:g}, expected a number from 0"
    assert stated == {"epsilon": None, "delta": 0.1, "clipping": 1, "problem": problem}
    assert problem in capsys.readouterr().out
    assert privacy_fields(stated) == stated, "as an integration hands it on"
    assert capsys.readouterr().out == ""


def test_an_epsilon_without_end_is_stated_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert (privacy_fields((Accountant(math.inf), 0.5)) or {})["epsilon"] == "Infinity"
    assert "privacy.epsilon: found inf, which promises nothing" in capsys.readouterr().out
    assert (privacy_fields((Accountant(math.nan), 0.5)) or {})["epsilon"] is None


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
        ({"epsilon": 1}, "found epsilon, expected delta too"),
        ({"eps": 1, "delta": 0.1}, "found eps, delta, expected epsilon too"),
        ({}, "found no key, expected epsilon and delta too"),
        ({"epsilom": 1, "delta": 0.1}, "found the key 'epsilom', expected 'epsilon'"),
        ({"epsilon": 1, "Delta": 0.1}, "found the key 'Delta', expected 'delta'"),
        (
            {"epsilon": 1, "delta": 0.1, "histroy": []},
            "found the key 'histroy', expected 'history'",
        ),
        ({"epsilon": 1, "delta": 1}, "found 1, expected a number from 0 to below 1"),
        ({"epsilon": 1, "delta": -0.5}, "found -0.5, expected a number from 0 to below 1"),
        ({"epsilon": 1, "delta": math.nan}, "found 'NaN', expected a number from 0 to below 1"),
        ({"epsilon": 1, "delta": None}, "found None, expected a number from 0 to below 1"),
        ({"epsilon": "1.5", "delta": 0}, "found '1.5', expected a number from 0"),
        ({"epsilon": True, "delta": 0}, "found True, expected a number from 0"),
        ({"epsilon": None, "delta": 0}, "found None, expected a number from 0"),
    ],
)
def test_what_is_neither_is_refused_in_one_line(given: Any, found: str) -> None:
    with pytest.raises(InputError, match="^privacy") as refused:
        privacy_fields(given)
    assert found in str(refused.value)
    assert "\n" not in str(refused.value)
