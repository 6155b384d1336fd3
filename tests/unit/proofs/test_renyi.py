"""The Rényi accountant against Opacus', and against what nobody should make it do."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import TooLargeError
from provenance.proofs.renyi import RenyiAccountant, Steps
from tests.support.frameworks import framework

# RDPAccountant.get_epsilon of Opacus 1.6.0.
VECTORS: list[tuple[list[Steps], float, float]] = [
    ([(1.0, 0.0, 5)], 1e-05, 0.10286725121127971),
    ([(1.1, 0.125, 24)], 1e-05, 4.520223138691792),
    ([(1.0, 0.01, 1000)], 1e-05, 2.1013652716430564),
    ([(0.6, 0.004, 15000)], 1e-06, 12.952279653532184),
    ([(4.0, 0.5, 200), (2.0, 0.25, 100)], 1e-07, 14.64071670359609),
    ([(1.0, 1.0, 10)], 1e-05, 19.05359753163139),
    ([(0.3, 0.2, 500)], 1e-05, 612.4966669401634),
    ([(10.0, 0.7, 3)], 0.001, 0.3041323072016691),
    ([(0.8, 1e-05, 100000)], 1e-09, 1.3172926851015876),
]


@pytest.mark.parametrize(("history", "delta", "epsilon"), VECTORS)
def test_vectors_of_opacus(history: list[Steps], delta: float, epsilon: float) -> None:
    assert RenyiAccountant().epsilon(history, delta) == pytest.approx(epsilon, rel=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_vectors_are_those_of_the_installed_opacus() -> None:
    accountants = framework("opacus.accountants", "opacus")
    for history, delta, epsilon in VECTORS[:3]:  # Opacus takes seconds for the others
        accountant = accountants.RDPAccountant()
        accountant.history = history
        assert accountant.get_epsilon(delta=delta) == pytest.approx(epsilon, rel=1e-9)


def test_no_step_spends_nothing_and_no_noise_everything() -> None:
    assert RenyiAccountant().epsilon([], 1e-5) == 0
    assert RenyiAccountant().epsilon([(0.0, 0.1, 1)], 1e-5) == math.inf
    assert RenyiAccountant().epsilon([(1e200, 0.1, 1)], 0.5) == 0


def test_equal_steps_in_pieces_spend_as_much() -> None:
    whole, pieces = [(1.1, 0.01, 300)], [(1.1, 0.01, 100)] * 3
    assert RenyiAccountant().epsilon(whole, 1e-5) == RenyiAccountant().epsilon(pieces, 1e-5)


NUMBERS = st.floats(0, 1e308, allow_nan=False)


@given(st.lists(st.tuples(NUMBERS, st.floats(0, 1), st.integers(1, 2**53)), max_size=3),
       st.floats(math.ulp(0.0), math.nextafter(1, 0)))  # fmt: skip
def test_whatever_steps_are_stated_give_a_number_or_too_much(
    history: list[Steps], delta: float
) -> None:
    with suppress(TooLargeError):
        assert RenyiAccountant(20_000).epsilon(history, delta) >= 0
