"""Range and equality proofs: whole, at the borders, and refused wherever one is touched."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import FormatError, InputError, ProofError
from provenance.proofs.bulletproofs import equality, range_proof
from provenance.proofs.bulletproofs.commitment import (
    Opening,
    decimal,
    exact_units,
    in_units,
    opening_of,
)
from provenance.proofs.bulletproofs.curve import BASE, N, generator, negated, point, total
from provenance.proofs.bulletproofs.transcript import Transcript
from tests.support.stranger import load

MOST = 2**64 - 1
REFUSED = (FormatError, ProofError)


@pytest.fixture(scope="module")
def stranger() -> ModuleType:
    """Section 13 of docs/FORMAT.md in arithmetic of its own."""
    hidden: ModuleType = load().hidden
    return hidden


def openings(*values: int) -> list[Opening]:
    return [Opening(value, 10**30 + at) for at, value in enumerate(values)]


def proved(*values: int, statement: bytes = b"s") -> bytes:
    return range_proof.prove(openings(*values), Transcript(statement))


def check(own: Sequence[Opening], proof: bytes, statement: bytes = b"s") -> None:
    range_proof.verify([each.commitment for each in own], proof, Transcript(statement))


# --- the curve ---------------------------------------------------------------------------


def test_a_sum_that_vanishes_is_no_point() -> None:
    other = negated(BASE)
    for terms in ([], [(0, BASE)], [(N, BASE)], [(1, BASE), (1, other)]):
        with pytest.raises(ProofError, match="vanishes"):
            total(terms)
    assert total([(1, BASE), (0, other), (N + 1, BASE)]).format() == total([(2, BASE)]).format()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        BASE.format()[:-1],
        BASE.format() + b"\0",
        BASE.format(compressed=False),
        b"\0" * 33,
        b"\4" + BASE.format()[1:],
        b"\2" + (5).to_bytes(32, "big"),  # x of no point
        b"\2" + b"\xff" * 32,  # no element of the field
    ],
    ids=["nothing", "short", "long", "uncompressed", "zeros", "prefix", "off the curve", "large"],
)
def test_a_point_has_one_form(data: bytes) -> None:
    with pytest.raises(FormatError):
        point(data)


@pytest.mark.parametrize("name", ["blinding", "inner", "left/0", "left/63", "right/127"])
def test_generators_are_those_that_other_arithmetic_gives(name: str, stranger: ModuleType) -> None:
    assert generator(name).format() == stranger.encode(stranger.generator(name))


def test_sums_are_those_that_other_arithmetic_gives(stranger: ModuleType) -> None:
    draw = random.Random(3)
    for _ in range(20):
        scalars, names = [draw.randrange(N) for _ in range(3)], ("blinding", "inner", "left/0")
        expected = stranger.total(
            [(s, stranger.generator(n)) for s, n in zip(scalars, names, strict=True)]
        )
        found = total([(s, generator(n)) for s, n in zip(scalars, names, strict=True)])
        assert found.format() == stranger.encode(expected)


# --- numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "scale", "units"),
    [
        (0.9, 6, 900_000),
        (0.1 + 0.2, 12, 300_000_000_000),
        (0.0000005, 6, 0),  # half to even
        (0.0000015, 6, 2),
        (-0.25, 2, -25),
        (60_000, 0, 60_000),
        (2**63 - 1, 0, 2**63 - 1),
        (2**63, 0, None),
        (-(2**63), 0, -(2**63)),
        (-(2**63) - 1, 0, None),
        (1e300, 6, None),
        (float("nan"), 6, None),
        (float("inf"), 6, None),
        (True, 6, None),
        ("0.9", 6, None),
        (None, 6, None),
    ],
)
def test_a_number_in_units_is_exact_or_nothing(
    number: object, scale: int, units: int | None
) -> None:
    assert in_units(number, scale) == units  # type: ignore[arg-type]  # what a record may have


@pytest.mark.parametrize(
    "text",
    [
        "0.9000001", "x", "", "nan", "sNaN", "inf", "-inf", "1e300", "1e-7", "1e999999999",
        "1e-999999999", f"1.{500 * '0'}1", "9223372036854.775808", "-9223372036854.775809",
    ],
)  # fmt: skip
def test_a_bound_that_does_not_fit_is_none(text: str) -> None:
    assert exact_units(text, 6) is None


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 12))
def test_a_decimal_is_read_back(value: int, scale: int) -> None:
    assert exact_units(decimal(value, scale), scale) == value


def test_a_blinding_is_of_its_number_alone() -> None:
    told = [
        (b"k" * 32, b"p" * 16, 5, "loss", 7),
        (b"l" * 32, b"p" * 16, 5, "loss", 7),
        (b"k" * 32, b"q" * 16, 5, "loss", 7),
        (b"k" * 32, b"p" * 16, 6, "loss", 7),
        (b"k" * 32, b"p" * 16, 5, "lost", 7),
        (b"k" * 32, b"p" * 16, 5, "loss", -7),
    ]
    assert len({opening_of(*each).blinding for each in told}) == len(told)
    assert opening_of(*told[0]) == opening_of(*told[0])
    assert repr(opening_of(*told[0])) == "Opening()"


# --- range proofs ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "values", [(0,), (1,), (MOST,), (2**63,), (0, MOST), (MOST, 0), (7, 7)], ids=str
)
def test_the_borders_are_in_the_range(values: tuple[int, ...], stranger: ModuleType) -> None:
    own, proof = openings(*values), proved(*values)
    assert len(proof) == range_proof.proof_bytes(len(values)) == {1: 688, 2: 754}[len(values)]
    check(own, proof)
    points = [stranger.decode(each.commitment.format()) for each in own]
    stranger.check_bounds(points, proof, stranger.Transcript(b"s"))


@pytest.mark.parametrize("values", [(-1,), (MOST + 1,), (0, -1), (MOST + 1, 0)])
def test_a_value_out_of_the_range_has_no_proof(values: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="out of the range"):
        proved(*values)


@pytest.mark.parametrize("value", [-1, MOST + 1, 2**200])
def test_no_proof_of_the_bits_of_another_value_holds(value: int) -> None:
    """A prover who commits to what is out of the range, and proves its low 64 bits."""
    proof = proved(value % 2**64)
    with pytest.raises(ProofError):
        check(openings(value), proof)


@pytest.mark.slow
@given(st.integers(0, MOST), st.integers(1, N - 1))
@settings(max_examples=5)
def test_any_value_with_any_blinding_is_proved(value: int, blinding: int) -> None:
    own = [Opening(value, blinding)]
    proof = range_proof.prove(own, Transcript(b"s"))
    check(own, proof)
    assert proof == range_proof.prove(own, Transcript(b"s"))


def fields(values: int) -> list[tuple[str, int, int]]:
    """Each field of a proof: its name, offset and size."""
    names = [("A", 33), ("S", 33), ("T1", 33), ("T2", 33), ("tau", 32), ("mu", 32), ("t", 32)]
    for number in range({1: 6, 2: 7}[values]):
        names += [(f"L{number}", 33), (f"R{number}", 33)]
    found, at = [], 0
    for name, size in [*names, ("a", 32), ("b", 32)]:
        found.append((name, at, size))
        at += size
    assert at == range_proof.proof_bytes(values)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("values", [(900_000,), (900_000, 100_000)], ids=["one", "two"])
def test_no_field_can_be_changed(values: tuple[int, ...], stranger: ModuleType) -> None:
    own, proof, draw = openings(*values), proved(*values), random.Random(5)
    others = proved(*values, statement=b"another")
    for name, at, size in fields(len(values)):
        flipped = bytearray(proof)
        flipped[at + draw.randrange(1, size)] ^= 1 << draw.randrange(8)
        swapped = proof[:at] + others[at : at + size] + proof[at + size :]
        for forged in (bytes(flipped), swapped):
            assert forged != proof, name
            with pytest.raises(REFUSED):
                check(own, forged)
    points = [stranger.decode(each.commitment.format()) for each in own]
    with pytest.raises(ValueError):
        stranger.check_bounds(points, bytes(flipped), stranger.Transcript(b"s"))


@pytest.mark.slow
@given(st.data())
@settings(max_examples=40)
def test_no_bit_can_be_flipped(data: st.DataObject) -> None:
    proof = bytearray(_PROOF)
    proof[data.draw(st.integers(0, len(proof) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(REFUSED):
        check(openings(900_000), bytes(proof))


_PROOF = proved(900_000)


@pytest.mark.parametrize(
    ("forged", "problem"),
    [
        (b"", "ends before"),
        (_PROOF[:-1], "ends before"),
        (_PROOF + b"\0", "bytes after"),
        (_PROOF[:-32] + N.to_bytes(32, "big"), "not below the order"),
        (_PROOF[:132] + b"\xff" * 32 + _PROOF[164:], "not below the order"),
        (bytes(33) + _PROOF[33:], "none of secp256k1"),
        (bytes(len(_PROOF)), "none of secp256k1"),
    ],
    ids=["empty", "short", "long", "order", "large scalar", "no point", "zeros"],
)
def test_a_proof_has_one_form(forged: bytes, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        check(openings(900_000), forged)


def test_a_proof_is_of_its_statement_and_commitments_alone() -> None:
    own = openings(900_000)
    check(own, _PROOF)
    for others, statement in (
        (own, b"t"),
        (openings(900_001), b"s"),
        ([Opening(900_000, 5)], b"s"),
    ):
        with pytest.raises(ProofError):
            check(others, _PROOF, statement)
    two = proved(1, 2)
    with pytest.raises(ProofError):
        check(list(reversed(openings(1, 2))), two)


# --- equality ----------------------------------------------------------------------------

SAME = Opening(7, 3), Opening(7, 99)


def equal(pair: tuple[Opening, Opening], proof: bytes, statement: bytes = b"s") -> None:
    first, second = (each.commitment for each in pair)
    equality.verify(first, second, proof, Transcript(statement))


def test_equal_values_are_proved_equal(stranger: ModuleType) -> None:
    proof = equality.prove(*SAME, Transcript(b"s"))
    assert len(proof) == equality.PROOF_BYTES
    equal(SAME, proof)
    points = [stranger.decode(each.commitment.format()) for each in SAME]
    stranger.check_equality(points, proof, stranger.Transcript(b"s"))
    for pair, statement in (
        (SAME, b"t"),
        ((SAME[1], SAME[0]), b"s"),
        ((SAME[0], Opening(8, 99)), b"s"),
        ((SAME[0], Opening(7, 98)), b"s"),
    ):
        with pytest.raises(ProofError):
            equal(pair, proof, statement)


def test_different_values_have_no_proof() -> None:
    with pytest.raises(InputError, match="differ"):
        equality.prove(SAME[0], Opening(8, 99), Transcript(b"s"))
    with pytest.raises(ProofError, match="the same one"):
        equality.prove(SAME[0], SAME[0], Transcript(b"s"))


def test_no_bit_of_an_equality_can_be_flipped() -> None:
    proof = equality.prove(*SAME, Transcript(b"s"))
    for bit in range(0, len(proof) * 8, 3):
        forged = bytearray(proof)
        forged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(REFUSED):
            equal(SAME, bytes(forged))
    for cut in (proof[:-1], proof + b"\0"):
        with pytest.raises(FormatError):
            equal(SAME, cut)
