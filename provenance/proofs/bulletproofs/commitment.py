"""Pedersen commitments to numbers in fixed point.

FROZEN FORMAT, version 1: docs/FORMAT.md, section 13::

    commitment = value * BASE + blinding * generator("blinding")

It hides the value, whatever anybody computes, and binds to it: who could open it to two values
knows the logarithm of a generator. Source: Pedersen, CRYPTO '91.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation
from typing import Final

from provenance.formats.record import Json
from provenance.proofs.bulletproofs.curve import BASE, N, Point, generator, total

LEAST: Final = -(2**63)
MOST: Final = 2**63 - 1
"""Of a committed value, in units of the last place."""
_CONTEXT: Final = Context(prec=400, rounding=ROUND_HALF_EVEN)
_EXACT: Final = Context(prec=400, traps=[Inexact, InvalidOperation])


@dataclass(frozen=True, slots=True)
class Opening:
    """What a commitment is of: kept by its owner; ``repr`` shows neither."""

    value: int = field(repr=False)
    blinding: int = field(repr=False)

    @property
    def commitment(self) -> Point:
        """The point that others see."""
        return total([(self.value, BASE), (self.blinding, generator("blinding"))])


def opening_of(key: bytes, producer: bytes, seq: int, name: str, value: int) -> Opening:
    """The opening of a number in a producer's record, always the same one.

    The blinding is ``HMAC-SHA512(key, producer || u64be seq || i64be value || name)``, reduced to
    1 to N - 1.

    Args:
        key: The run's blinding key, 32 bytes.
    """
    text = producer + seq.to_bytes(8, "big") + value.to_bytes(8, "big", signed=True) + name.encode()
    block = hmac.new(key, text, hashlib.sha512).digest()
    return Opening(value, int.from_bytes(block, "big") % (N - 1) + 1)


def in_units(number: Json, scale: int) -> int | None:
    """A number times 10^scale, rounded half to even; None of what is none, or out of range."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    try:
        units = Decimal(repr(number)).scaleb(scale, _CONTEXT).quantize(Decimal(1), context=_CONTEXT)
        value = int(units)
    except (InvalidOperation, OverflowError, ValueError):  # NaN, an infinity, a number too large
        return None
    return value if LEAST <= value <= MOST else None


def exact_units(text: str, scale: int) -> int | None:
    """A bound, as a person writes it, times 10^scale; None where it is no number, has more
    decimals, or is out of range."""
    try:
        units = Decimal(text).scaleb(scale, _EXACT)
        value = int(units)
    except (ArithmeticError, ValueError):  # of decimal too: NaN, an infinity, too many digits
        return None
    return value if units == value and LEAST <= value <= MOST else None


def decimal(value: int, scale: int) -> str:
    """A value in units as a person reads it: ``0.9`` of 900000 and 6."""
    digits = f"{abs(value):0{scale + 1}d}"
    whole, part = digits[: len(digits) - scale], digits[len(digits) - scale :].rstrip("0")
    return f"{'-' if value < 0 else ''}{whole}{'.' if part else ''}{part}"
