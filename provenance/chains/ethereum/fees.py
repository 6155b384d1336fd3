"""EIP-1559 fees: what a new transaction offers and what its replacement must.

Pure arithmetic on integers in wei per gas.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from provenance.errors import FeeTooLowError

GWEI = 10**9
_KEY = "blockchain.ethereum.max_fee_gwei"


@dataclass(frozen=True, slots=True)
class Fees:
    """``maxFeePerGas`` and ``maxPriorityFeePerGas``, wei per gas."""

    max_fee: int
    priority: int


def gwei(amount: int) -> str:
    """Wei as text in gwei."""
    return plain(amount, -9)


def plain(amount: int, exponent: int) -> str:
    """``amount * 10**exponent`` as text, without an exponent or trailing zeros."""
    text = f"{Decimal(amount).scaleb(exponent):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def wei(amount_gwei: float) -> int:
    """Gwei as it stands in a configuration, in wei."""
    return int(Decimal(str(amount_gwei)) * GWEI)


def market(base_fee: int, priority: int) -> Fees:
    """``2 * base fee + priority``: still valid after six full blocks in a row, in each of
    which the base fee rises by an eighth (EIP-1559)."""
    return Fees(2 * base_fee + priority, priority)


def offer(base_fee: int, priority: int, cap: int) -> Fees:
    """Fees of a new transaction: the market's, cut at ``cap``. Raises FeeTooLowError: the base fee
    alone is above the cap; resumes when it falls."""
    if base_fee > cap:
        raise FeeTooLowError(
            f"ethereum base fee is {gwei(base_fee)} gwei, above the cap of {gwei(cap)} "
            f"({_KEY}); waiting for it to fall"
        )
    wanted = market(base_fee, priority)
    max_fee = min(wanted.max_fee, cap)
    return Fees(max_fee, min(priority, max_fee))


def least_bump(value: int) -> int:
    """The smallest fee a replacement may carry: 1.125 times and one wei more.

    go-ethereum and Erigon ask for 10 % on both fees, anvil and Nethermind as well.
    """
    return value + value // 8 + 1


def bump(old: Fees, base_fee: int, priority: int, cap: int) -> Fees:
    """Fees of a replacement on the same nonce: both up by 15 %, and never below the market.

    Where the cap leaves less than 15 % but at least :func:`least_bump`, the cap is offered. Raises
    FeeTooLowError: the cap leaves no room for a valid replacement."""
    now = market(base_fee, priority)
    max_fee = min(max(-(-old.max_fee * 115 // 100), least_bump(old.max_fee), now.max_fee), cap)
    least_tip = least_bump(old.priority)
    tip = min(max(-(-old.priority * 115 // 100), least_tip, priority), max_fee)
    if max_fee < least_bump(old.max_fee) or tip < least_tip:
        raise FeeTooLowError(
            f"ethereum fee cap reached: {gwei(old.max_fee)} gwei is offered already and a "
            f"replacement needs {gwei(least_bump(old.max_fee))}, above the cap of "
            f"{gwei(cap)} ({_KEY})"
        )
    return Fees(max_fee, tip)
