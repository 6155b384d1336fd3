from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.chains.ethereum.fees import (
    GWEI,
    Fees,
    bump,
    gwei,
    least_bump,
    market,
    offer,
    wei,
)
from provenance.errors import FeeTooLowError

amounts = st.integers(0, 10**15)


def test_offer_is_twice_the_base_fee_and_the_tip() -> None:
    assert offer(10 * GWEI, 2 * GWEI, 200 * GWEI) == Fees(22 * GWEI, 2 * GWEI)


def test_offer_is_cut_at_the_cap() -> None:
    assert offer(10 * GWEI, 2 * GWEI, 15 * GWEI) == Fees(15 * GWEI, 2 * GWEI)
    assert offer(1 * GWEI, 9 * GWEI, 5 * GWEI) == Fees(5 * GWEI, 5 * GWEI)


def test_offer_above_the_cap_says_both_numbers() -> None:
    with pytest.raises(FeeTooLowError, match=r"250\.5 gwei.*cap of 200 .*max_fee_gwei"):
        offer(250_500_000_000, GWEI, 200 * GWEI)


def test_bump_is_fifteen_percent_on_both() -> None:
    assert bump(Fees(1000, 100), 1, 1, 10**6) == Fees(1150, 115)


def test_bump_follows_the_market_up() -> None:
    assert bump(Fees(1000, 100), 5000, 400, 10**6) == Fees(10_400, 400)


def test_bump_takes_the_last_room_below_the_cap() -> None:
    assert bump(Fees(1000, 100), 1, 1, 1130) == Fees(1130, 115)


@pytest.mark.parametrize("cap", [1125, 1000, 900])
def test_bump_stops_at_the_cap_and_says_so(cap: int) -> None:
    with pytest.raises(FeeTooLowError, match="cap reached"):
        bump(Fees(1000, 100), 1, 1, cap)


def test_a_zero_fee_can_be_bumped() -> None:
    assert bump(Fees(0, 0), 0, 0, 10) == Fees(1, 1)


@pytest.mark.slow
@given(amounts, amounts, amounts)
def test_offer_never_passes_the_cap(base: int, tip: int, cap: int) -> None:
    try:
        fees = offer(base, tip, cap)
    except FeeTooLowError:
        assert base > cap
        return
    assert base <= fees.max_fee <= cap
    assert fees.priority <= fees.max_fee <= market(base, tip).max_fee


@given(amounts, amounts, amounts, amounts, amounts)
def test_a_bump_is_always_a_valid_replacement(
    old: int, old_tip: int, base: int, tip: int, cap: int
) -> None:
    before = Fees(old, min(old, old_tip))
    try:
        after = bump(before, base, tip, cap)
    except FeeTooLowError:
        assert least_bump(before.max_fee) > cap or least_bump(before.priority) > cap
        return
    # go-ethereum asks for 10 % on both; no rounding may fall below it.
    assert after.max_fee * 100 >= before.max_fee * 110
    assert after.priority * 100 >= before.priority * 110
    assert after.max_fee > before.max_fee
    assert after.priority > before.priority
    assert after.priority <= after.max_fee <= cap


@given(amounts, amounts, amounts)
def test_bumps_end_at_the_cap(old: int, base: int, tip: int) -> None:
    cap, fees = 10**12, Fees(old, old)
    for _ in range(400):
        try:
            fees = bump(fees, base, tip, cap)
        except FeeTooLowError:
            return
    pytest.fail("bumped 400 times without reaching the cap")


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0"), (1, "0.000000001"), (10 * GWEI, "10"), (1_500_000_000, "1.5")]
)
def test_gwei_text(amount: int, text: str) -> None:
    assert gwei(amount) == text


def test_wei_has_no_binary_rounding() -> None:
    assert wei(0.1) == 100_000_000
    assert wei(200.0) == 200 * GWEI
