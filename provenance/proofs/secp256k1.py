"""secp256k1: whose key signed a message, recovered from the signature.

Pure Python, a few milliseconds each; nothing secret is computed with it. Source: SEC 1 v2.0 section
4.1.6 (recovery), SEC 2 v2.0 section 2.4.1 (the curve ``y^2 = x^3 + 7``).
"""

from __future__ import annotations

from typing import Final

from provenance.errors import FormatError

P: Final = 2**256 - 2**32 - 977
N: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_G: Final = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
    1,
)
_ZERO: Final = (0, 1, 0)
_Point = tuple[int, int, int]
"""Jacobian: ``x / z^2, y / z^3``; the zero point has ``z`` 0."""


def recover(digest: bytes, r: int, s: int, odd: bool) -> bytes:
    """The public key that signed a digest of 32 bytes: x and y, 32 bytes each; ``odd`` says whether
    y of the point whose x is ``r`` is. ``FormatError`` where no key can have."""
    if not (0 < r < N and 0 < s < N):
        raise FormatError("signature: r or s is out of range")
    square = (pow(r, 3, P) + 7) % P
    y = pow(square, (P + 1) // 4, P)
    if y * y % P != square:
        raise FormatError("signature: r is on no point of the curve")
    point = (r, y if y % 2 == odd else P - y, 1)
    inverse = pow(r, -1, N)
    x, y, z = _sum(-int.from_bytes(digest, "big") * inverse % N, s * inverse % N, point)
    if not z:
        raise FormatError("signature: recovers no key")
    back = pow(z, -1, P)
    return (x * back**2 % P).to_bytes(32, "big") + (y * back**3 % P).to_bytes(32, "big")


def _sum(a: int, b: int, point: _Point) -> _Point:
    """``a * G + b * point``, both bit by bit at once."""
    table = (_ZERO, _G, point, _add(_G, point))
    total = _ZERO
    for at in range(max(a.bit_length(), b.bit_length()) - 1, -1, -1):
        total = _double(total)
        step = (a >> at & 1) | (b >> at & 1) << 1
        if step:
            total = _add(total, table[step])
    return total


def _double(point: _Point) -> _Point:
    x, y, z = point
    if not z or not y:
        return _ZERO
    square = y * y % P
    factor, slope = 4 * x * square % P, 3 * x * x % P
    new = (slope * slope - 2 * factor) % P
    return new, (slope * (factor - new) - 8 * square * square) % P, 2 * y * z % P


def _add(left: _Point, right: _Point) -> _Point:
    (x1, y1, z1), (x2, y2, z2) = left, right
    if not z1 or not z2:
        return right if not z1 else left
    square1, square2 = z1 * z1 % P, z2 * z2 % P
    u1, u2 = x1 * square2 % P, x2 * square1 % P
    s1, s2 = y1 * square2 * z2 % P, y2 * square1 * z1 % P
    h, slope = (u2 - u1) % P, (s2 - s1) % P
    if not h:
        return _double(left) if not slope else _ZERO
    square, cube = h * h % P, h * h % P * h % P
    x = (slope * slope - cube - 2 * u1 * square) % P
    return x, (slope * (u1 * square - x) - s1 * cube) % P, h * z1 * z2 % P
