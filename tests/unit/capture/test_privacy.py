"""What an epoch's privacy budget may be given as."""

from __future__ import annotations

import math
from typing import Any

import pytest

from provenance.capture.privacy import _warn, privacy_fields
from provenance.errors import InputError
from provenance.formats.record import normalise


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


@pytest.mark.parametrize(
    ("given", "doubts"),
    [
        ({"epsilon": 1.5, "delta": 0, "clipping": 1, "epochs": 3}, []),
        ({"epsilon": 1}, ["found no delta, expected a number from 0 to below 1"]),
        ({"eps": 1, "delta": 0.1}, ["found no epsilon, expected a finite number from 0"]),
        (
            {"Delta": 0.1, "epsilon": -3},
            [
                "found the key 'Delta', expected 'delta'",
                "privacy.epsilon: found -3, expected a finite number from 0",
                "found no delta",
            ],
        ),
        ({"epsilon": 2, "delta": 1, "histroy": []}, ["expected 'history'", "delta: found 1, "]),
        ({"epsilon": 2, "delta": math.nan}, ["privacy.delta: found 'NaN'"]),
        ({"epsilon": math.inf, "delta": -0.5}, ["epsilon: found 'Infinity'", "found -0.5"]),
        ({"epsilon": None, "delta": None}, ["epsilon: found None", "delta: found None"]),
        ({"epsilon": "1.5", "delta": True}, ["epsilon: found '1.5'", "delta: found True"]),
        ({"epsilon": None, "problem": "told already"}, []),
    ],
)
def test_a_doubtful_budget_is_stated_as_given_and_said_once(
    given: dict[str, Any], doubts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _warn.cache_clear()
    assert privacy_fields(given) == privacy_fields(given) == normalise(given)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(doubts)
    assert all(doubt in line for doubt, line in zip(doubts, lines, strict=True))


def test_an_accountants_epsilon_without_end_is_stated() -> None:
    assert (privacy_fields((Accountant(math.inf), 0.5)) or {})["epsilon"] == "Infinity"
    assert (privacy_fields((Accountant(math.nan), 0.5)) or {})["epsilon"] is None


def test_an_accountant_that_fails_leaves_its_steps_and_says_so() -> None:
    fields = privacy_fields((Accountant(RuntimeError("domain too small")), 1e-5)) or {}
    assert fields["epsilon"] is None
    assert fields["problem"] == "RuntimeError: domain too small"
    assert fields["history"] == STEPS


def test_an_accountant_of_a_damaged_history_ends_no_training() -> None:
    damaged = Accountant()
    damaged.history.append(("none", 0.125, 8))  # type: ignore[arg-type]  # wrong on purpose
    fields = privacy_fields((damaged, 1e-5)) or {}
    assert (fields["epsilon"], fields["history"]) == (None, [])
    assert "could not convert" in str(fields["problem"])


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
    with pytest.raises(InputError, match="^privacy") as refused:
        privacy_fields(given)
    assert found in str(refused.value)
    assert "\n" not in str(refused.value)
