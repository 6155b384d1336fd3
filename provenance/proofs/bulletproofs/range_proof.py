"""Range proofs: committed values lie in 0 to 2^64 - 1, and nothing else about them.

FROZEN FORMAT, version 1: docs/FORMAT.md, section 13. Source: Bünz, Bootle, Boneh, Poelstra,
Wuille, Maxwell, "Bulletproofs", IEEE S&P 2018 (https://eprint.iacr.org/2017/1066): the aggregated
proof of section 4.3 over the inner-product argument of section 3. Of its names, ``g`` is
:data:`BASE` here, ``h`` the generator ``blinding``, ``u`` ``inner``, and the vectors are ``left/0``
and on, ``right/0`` and on.

::

    proof = A || S || T1 || T2 || tau || mu || t || (L || R) for each round || a || b
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Final

from provenance.errors import InputError, ProofError, TrailingBytesError
from provenance.proofs.bulletproofs.commitment import Opening
from provenance.proofs.bulletproofs.curve import (
    BASE,
    POINT_BYTES,
    SCALAR_BYTES,
    N,
    Point,
    Reader,
    are_equal,
    encoded,
    generator,
    negated,
    total,
)
from provenance.proofs.bulletproofs.transcript import Transcript

BITS: Final = 64
_Scalars = Sequence[int]
_Points = Sequence[Point]


def proof_bytes(values: int) -> int:
    """How long a proof about 1 or 2 values is: 688 or 754 bytes."""
    return (4 + 2 * _rounds(values)) * POINT_BYTES + 5 * SCALAR_BYTES


def prove(openings: Sequence[Opening], transcript: Transcript) -> bytes:
    """Prove that 1 or 2 values lie in the range; ``InputError`` where one does not."""
    if any(not 0 <= opening.value < 1 << BITS for opening in openings):
        raise InputError("a value is out of the range, so there is no proof")
    nonces = transcript.nonces(n for each in openings for n in (each.value, each.blinding))
    g, h = _vectors(len(openings))
    size, blinding = len(g), generator("blinding")
    for opening in openings:
        transcript.append("V", opening.commitment.format())
    bits = [opening.value >> at & 1 for opening in openings for at in range(BITS)]
    s_left, s_right = list(islice(nonces, size)), list(islice(nonces, size))
    alpha, rho, tau1, tau2 = islice(nonces, 4)

    big_a = total([(alpha, blinding), *zip(bits, g, strict=True),
                   *((bit - 1, each) for bit, each in zip(bits, h, strict=True))])  # fmt: skip
    big_s = total([(rho, blinding), *zip(s_left, g, strict=True), *zip(s_right, h, strict=True)])
    y, z = _challenges_yz(transcript, big_a, big_s)
    ys, weights = _powers(y, size), _weights(z, len(openings))
    l0, l1 = [bit - z for bit in bits], s_left
    r0 = [p * (bit - 1 + z) + w for p, bit, w in zip(ys, bits, weights, strict=True)]
    r1 = [p * s for p, s in zip(ys, s_right, strict=True)]
    t1, t2 = _inner(l0, r1) + _inner(l1, r0), _inner(l1, r1)
    big_t1, big_t2 = total([(t1, BASE), (tau1, blinding)]), total([(t2, BASE), (tau2, blinding)])
    x = _challenge_x(transcript, big_t1, big_t2)

    left = [(a + b * x) % N for a, b in zip(l0, l1, strict=True)]
    right = [(a + b * x) % N for a, b in zip(r0, r1, strict=True)]
    blinds = sum(pow(z, 2 + at, N) * each.blinding for at, each in enumerate(openings))
    scalars = encoded([tau2 * x * x + tau1 * x + blinds, alpha + rho * x, _inner(left, right)])
    transcript.append("t", scalars)
    inner = total([(transcript.challenge("w"), generator("inner"))])
    own_h = [
        total([(power, each)]) for power, each in zip(_powers(pow(y, -1, N), size), h, strict=True)
    ]
    rounds = b"".join(_fold(left, right, list(g), own_h, inner, transcript))
    return b"".join(each.format() for each in (big_a, big_s, big_t1, big_t2)) + scalars + rounds


def _fold(
    a: list[int], b: list[int], g: list[Point], h: list[Point], inner: Point, transcript: Transcript
) -> Iterator[bytes]:
    """The inner-product argument: half the vectors at each round, the last two scalars at last."""
    while len(a) > 1:
        half = len(a) // 2
        (a1, a2), (b1, b2) = (a[:half], a[half:]), (b[:half], b[half:])
        (g1, g2), (h1, h2) = (g[:half], g[half:]), (h[:half], h[half:])
        left = total(
            [*zip(a1, g2, strict=True), *zip(b2, h1, strict=True), (_inner(a1, b2), inner)]
        )
        right = total(
            [*zip(a2, g1, strict=True), *zip(b1, h2, strict=True), (_inner(a2, b1), inner)]
        )
        yield left.format() + right.format()
        u = _challenge_u(transcript, left, right)
        v = pow(u, -1, N)
        a = [(p * u + q * v) % N for p, q in zip(a1, a2, strict=True)]
        b = [(p * v + q * u) % N for p, q in zip(b1, b2, strict=True)]
        g = [total([(v, p), (u, q)]) for p, q in zip(g1, g2, strict=True)]
        h = [total([(u, p), (v, q)]) for p, q in zip(h1, h2, strict=True)]
    yield encoded([a[0], b[0]])


def verify(commitments: Sequence[Point], proof: bytes, transcript: Transcript) -> None:
    """Check a proof about 1 or 2 committed values; ``FormatError`` where it is none, ``ProofError``
    where it does not hold."""
    if len(proof) > proof_bytes(len(commitments)):
        raise TrailingBytesError("proof: bytes after its last field")
    read = Reader(proof)
    big_a, big_s, big_t1, big_t2 = read.points(4)
    tau, mu, t = read.scalars(3)
    rounds = list(_pairs(read, _rounds(len(commitments))))
    a, b = read.scalars(2)
    for each in commitments:
        transcript.append("V", each.format())
    y, z = _challenges_yz(transcript, big_a, big_s)
    x = _challenge_x(transcript, big_t1, big_t2)
    transcript.append("t", encoded([tau, mu, t]))
    w = transcript.challenge("w")
    us = [_challenge_u(transcript, left, right) for left, right in rounds]
    g, h = _vectors(len(commitments))
    ys, weights = _powers(y, len(g)), _weights(z, len(commitments))

    # t is the value at x of the polynomial to which T1, T2 and the commitments bind.
    delta = (z - z * z) * sum(ys) - z * sum(weights)
    terms = [(t - delta, BASE), (tau, generator("blinding")), (-x * x, big_t2)]
    terms += [(-pow(z, 2 + at, N), each) for at, each in enumerate(commitments)]
    if not are_equal(terms, total([(x, big_t1)])):
        raise ProofError("range proof: t is not the value that the commitments give")

    # t is the inner product of two vectors to which A and S bind.
    s, inverses = _folded(us), _powers(pow(y, -1, N), len(h))
    terms = [(x, big_s), (-mu, generator("blinding")),
             (w * (t - a * b), generator("inner"))]  # fmt: skip
    terms += [(-z - a * each, point) for each, point in zip(s, g, strict=True)]
    terms += [
        (z + power * (weight - b * each), point)
        for power, weight, each, point in zip(inverses, weights, reversed(s), h, strict=True)
    ]
    for u, (left, right) in zip(us, rounds, strict=True):
        terms += [(u * u, left), (pow(u, -2, N), right)]
    if not are_equal(terms, negated(big_a)):
        raise ProofError("range proof: the inner product does not hold")


def _pairs(read: Reader, count: int) -> Iterator[tuple[Point, Point]]:
    for _ in range(count):
        left, right = read.points(2)
        yield left, right


def _rounds(values: int) -> int:
    return (BITS * values).bit_length() - 1


def _vectors(values: int) -> tuple[_Points, _Points]:
    size = range(BITS * values)
    return [generator(f"left/{at}") for at in size], [generator(f"right/{at}") for at in size]


def _challenges_yz(transcript: Transcript, big_a: Point, big_s: Point) -> tuple[int, int]:
    transcript.append("A", big_a.format())
    transcript.append("S", big_s.format())
    return transcript.challenge("y"), transcript.challenge("z")


def _challenge_x(transcript: Transcript, big_t1: Point, big_t2: Point) -> int:
    transcript.append("T1", big_t1.format())
    transcript.append("T2", big_t2.format())
    return transcript.challenge("x")


def _challenge_u(transcript: Transcript, left: Point, right: Point) -> int:
    transcript.append("L", left.format())
    transcript.append("R", right.format())
    return transcript.challenge("u")


def _powers(base: int, count: int) -> list[int]:
    powers = [1]
    for _ in range(count - 1):
        powers.append(powers[-1] * base % N)
    return powers


def _weights(z: int, values: int) -> list[int]:
    """z^2 times the powers of two, then for a second value z^3 times them."""
    return [pow(z, 2 + at, N) * (1 << bit) % N for at in range(values) for bit in range(BITS)]


def _inner(left: _Scalars, right: _Scalars) -> int:
    return sum(a * b for a, b in zip(left, right, strict=True)) % N


def _folded(us: _Scalars) -> list[int]:
    """By what each generator is multiplied in the end; backwards it is their inverses."""
    products = [1]
    for u in us:
        factors = (pow(u, -1, N), u)
        products = list(chain.from_iterable((p * f % N for f in factors) for p in products))
    return products
