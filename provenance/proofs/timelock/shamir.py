"""Shamir's secret sharing (Communications of the ACM 22 (1979) 612), byte by byte in the field of
AES (FIPS 197, section 4.2): the secret is a polynomial's value at 0, share i its value at i."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import xor


def split(
    secret: bytes, threshold: int, shares: int, random: Callable[[int], bytes]
) -> dict[int, bytes]:
    """Shares by their numbers, 1 to ``shares``; ``threshold`` of them give the secret, and fewer
    say nothing of it. ``random`` makes so many unpredictable bytes."""
    rows = [secret, *(random(len(secret)) for _ in range(threshold - 1))]
    return {x: bytes(_value(column, x) for column in zip(*rows, strict=True))
            for x in range(1, shares + 1)}  # fmt: skip


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret behind as many shares as the threshold; of fewer, or a wrong one, other bytes."""
    factors = {x: _at_zero(x, shares) for x in shares}
    size = len(next(iter(shares.values())))
    return bytes(
        reduce(xor, (_times(share[at], factors[x]) for x, share in shares.items()))
        for at in range(size)
    )


def _value(coefficients: tuple[int, ...], x: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = _times(value, x) ^ coefficient
    return value


def _at_zero(x: int, others: Mapping[int, bytes]) -> int:
    """What Lagrange's polynomial of ``x`` is at 0."""
    factor = 1
    for other in others:
        if other != x:
            factor = _times(factor, _times(other, _inverse(other ^ x)))
    return factor


def _times(a: int, b: int) -> int:
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def _inverse(a: int) -> int:
    """``a`` to the 254th."""
    value = a
    for _ in range(6):
        value = _times(_times(value, value), a)
    return _times(value, value)
