"""secp256k1 as proofs need it: scalars are integers modulo :data:`N`, points coincurve's.

All arithmetic on points is libsecp256k1's. It knows neither a point at infinity nor a zero scalar:
a term whose scalar is zero is left out of a sum, and a sum that has no term, or that vanishes, is a
``ProofError``. No step of these protocols needs such a sum, but for a chance of about 2^-256.

Multiplication is libsecp256k1's variable-time one: prove where nobody measures the time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final

from provenance.errors import FormatError, MissingExtraError, ProofError, TruncatedError
from provenance.proofs.secp256k1 import N as N

try:
    from coincurve import PublicKey
except ModuleNotFoundError as error:
    raise MissingExtraError("coincurve", "zk") from error

Point = PublicKey
POINT_BYTES: Final = 33
SCALAR_BYTES: Final = 32
_GENERATOR: Final = b"ml-provenance/generator/v1\0"
BASE: Final = Point.from_secret((1).to_bytes(SCALAR_BYTES, "big"))
"""The base point of SEC 2 v2.0 section 2.4.1."""


def point(data: bytes) -> Point:
    """The point that 33 bytes encode (SEC 1 v2.0 section 2.3.4, compressed), or ``FormatError``."""
    if len(data) != POINT_BYTES:
        raise FormatError(f"point of {len(data)} bytes, expected {POINT_BYTES}")
    try:
        return Point(bytes(data))
    except ValueError as error:
        raise FormatError(f"point {data.hex()[:16]}...: is none of secp256k1") from error


def negated(of: Point) -> Point:
    """The point whose sum with another is nothing: the encoding's first byte tells y's parity."""
    data = of.format()
    return Point(bytes([data[0] ^ 1]) + data[1:])


def total(terms: Iterable[tuple[int, Point]]) -> Point:
    """The sum of points, each times its scalar, or ``ProofError`` where it vanishes."""
    parts = [
        each.multiply((scalar % N).to_bytes(SCALAR_BYTES, "big"))
        for scalar, each in terms
        if scalar % N
    ]
    if not parts:  # libsecp256k1 aborts the process
        raise ProofError("a sum of points vanishes")
    try:
        return Point.combine_keys(parts)
    except ValueError as error:
        raise ProofError("a sum of points vanishes") from error


def are_equal(left: Iterable[tuple[int, Point]], right: Point) -> bool:
    """Whether a sum as :func:`total` takes it is this point."""
    try:
        return total(left).format() == right.format()
    except ProofError:  # nothing, which no point is
        return False


@cache
def generator(name: str) -> Point:
    """The point of a name, of which nobody knows the logarithm: with even y, and as x the first
    SHA-256 of the context, the name, 00 and a counter (u32, big-endian, from 0) that has one."""
    counter = 0
    while True:
        text = _GENERATOR + name.encode() + b"\0" + counter.to_bytes(4, "big")
        try:
            return Point(b"\2" + hashlib.sha256(text).digest())
        except ValueError:
            counter += 1


class Reader:
    """Points and scalars of a proof, front to back; ``FormatError`` where one is none."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    def _take(self, size: int) -> bytes:
        if len(self._rest) < size:
            raise TruncatedError("proof: ends before its last field")
        taken, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return taken

    def points(self, count: int) -> Iterator[Point]:
        """The next points."""
        for _ in range(count):
            yield point(self._take(POINT_BYTES))

    def scalars(self, count: int) -> Iterator[int]:
        """The next scalars, 32 bytes big-endian each, below N."""
        for _ in range(count):
            scalar = int.from_bytes(self._take(SCALAR_BYTES), "big")
            if scalar >= N:
                raise FormatError("proof: a scalar is not below the order of the curve")
            yield scalar


def encoded(scalars: Iterable[int]) -> bytes:
    """Scalars as :meth:`Reader.scalars` reads them."""
    return b"".join((scalar % N).to_bytes(SCALAR_BYTES, "big") for scalar in scalars)
