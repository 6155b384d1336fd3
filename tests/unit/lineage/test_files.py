"""What files show of each other, entry by entry, against ways that are slow and plain."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import InputError
from provenance.lineage import files
from provenance.lineage.files import merged, pruned, quantised

KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
numbers = st.lists(
    st.floats(-100, 100, width=16).filter(lambda x: x == 0 or abs(x) > 0.01),
    min_size=4,
    max_size=12,
)


def tensors(kind: str, **values: Any) -> dict[str, Any]:
    return {
        name: (kind, np.shape(own), np.array(own, KINDS.get(kind, "<u2")).reshape(-1))
        for name, own in values.items()
    }


def bf16(value: float) -> int:
    """The bits of the nearest BF16, by trying both neighbours: of two as near, the even one."""
    low: int = struct.unpack("<I", struct.pack("<f", np.float32(value)))[0] >> 16

    def number(bits: int) -> Fraction:
        return Fraction(struct.unpack("<f", struct.pack("<I", bits << 16))[0])

    near = (low - 1, low, low + 1) if low & 0x7FFF else (low, low + 1)
    return min(near, key=lambda bits: (abs(number(bits) - Fraction(value)), bits & 1))


@given(numbers)
def test_doubles_are_rounded_to_bf16_as_by_hand(values: list[float]) -> None:
    doubles = np.array(values) * 1.2345678
    rounded = files._rounded(doubles, "BF16").astype("<f4").view("<u4") >> 16
    assert rounded.tolist() == [bf16(value) for value in doubles.tolist()]


@pytest.mark.slow
@settings(deadline=None)
@given(numbers, st.data())
def test_pruned_entries_are_counted_as_by_hand(values: list[float], data: st.DataObject) -> None:
    fate = data.draw(st.lists(st.sampled_from("k0x"), min_size=len(values), max_size=len(values)))
    ours = [
        own if f == "k" else 0.0 if f == "0" else own + 1
        for own, f in zip(values, fate, strict=True)
    ]
    found = pruned(tensors("F32", w=ours, new=[1.0]), tensors("F32", w=values))
    old, new = np.array(values, "<f4"), np.array(ours, "<f4")
    same = [a.tobytes() == b.tobytes() for a, b in zip(old, new, strict=True)]
    zero = [not s and n == 0 for s, n in zip(same, new, strict=True)]
    assert found[:3] == (sum(same), sum(zero), len(values) - sum(same) - sum(zero))
    assert found.tensors == 1
    assert found.holds == (sum(zero) > 0 and sum(same) + sum(zero) == len(values))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS])
@pytest.mark.parametrize("in_type", [True, False])
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), parts=st.tuples(st.integers(-95, 95), st.integers(5, 95)))
def test_a_merge_is_found_whichever_way_it_was_computed(
    kind: str, in_type: bool, seed: int, parts: tuple[int, int]
) -> None:
    chance, (a, b) = np.random.default_rng(seed), (number / 100 for number in parts)
    one, two = (chance.normal(size=300).astype(KINDS[kind]) for _ in range(2))
    if in_type:
        made = one.dtype.type(a) * one + one.dtype.type(b) * two
    else:
        made = (a * one.astype("f8") + b * two.astype("f8")).astype(one.dtype)
    own, parents = tensors(kind, w=made), [tensors(kind, w=one), tensors(kind, w=two)]
    found = merged(own, parents)
    assert found.holds, found.line
    assert found.exact + found.near == 300
    assert found.numbers == pytest.approx((a, b), abs=2e-3)
    ulps = made.copy()
    largest = max(abs(a * one[7]), abs(b * two[7]), abs(made[7]))
    ulps[7] += 4 * np.spacing(one.dtype.type(largest))
    assert merged(tensors(kind, w=ulps), parents).other == 1


def test_a_merge_of_three_of_bf16_is_found() -> None:
    chance = np.random.default_rng(3)
    values = [[bf16(x) for x in chance.normal(size=200)] for _ in range(3)]
    doubles = [files._numbers(np.array(own, "<u2"), "BF16") for own in values]
    made = [bf16(0.5 * a + 0.25 * b - 0.25 * c) for a, b, c in zip(*doubles, strict=True)]
    found = merged(tensors("BF16", w=made), [tensors("BF16", w=own) for own in values])
    assert (found.numbers, found.exact, found.holds) == ((0.5, 0.25, -0.25), 200, True)
    assert found.line.startswith("merge: 0.5 * A + 0.25 * B + -0.25 * C: 200 of 200 entries to")


def test_what_is_no_merge_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK", 64)
    chance = np.random.default_rng(4)
    one, two, other = ({"w": chance.normal(size=(10, 20))} for _ in range(3))
    parents = [tensors("F32", **one), tensors("F32", **two)]
    assert not merged(tensors("F32", **other), parents).holds
    half = {**tensors("F32", w=(one["w"] + two["w"]) / 2), **tensors("F32", head=[1.0])}
    found = merged(half, parents)
    assert (found.other, found.left, found.holds) == (0, ("head",), False)
    assert "1 tensor not compared, such as 'head'" in found.line
    empty = merged(tensors("F32", v=[1.0]), parents)
    assert (empty.numbers, empty.holds) == ((0.0, 0.0), False)
    assert not merged(tensors("F32", w=other["w"] * np.nan), parents).holds
    for wrong in (parents[:1], parents * 5):
        with pytest.raises(InputError, match="merge: found .* models, expected 2 to 8"):
            merged(half, wrong)


# --- quantised ------------------------------------------------------------------------------


def bytes_of(*shape: int, values: Any) -> dict[str, Any]:
    return {"w": ("I8", shape, np.array(values, "<i1").reshape(-1).view("<u1"))}


def scale_by_hand(xs: list[float], qs: list[int]) -> bool:
    """Whether a scale rounds each x to its q, by the bounds of each in fractions."""
    least, most = Fraction(0), None
    for x, q in zip(map(Fraction, xs), qs, strict=True):
        steps = q if x > 0 else -q
        if x == 0 or steps < 0:
            if q:
                return False
            continue
        if steps < 127:
            least = max(least, abs(x) / (steps + Fraction(1, 2)))
        if steps:
            bound = abs(x) / (steps - Fraction(1, 2))
            most = bound if most is None else min(most, bound)
    if most is None:
        return not any(xs)
    return least <= most * (1 + Fraction(files.SLACK))


@pytest.mark.slow
@settings(deadline=None)
@given(numbers, st.floats(0.01, 30), st.data())
def test_a_scale_is_found_where_there_is_one_by_hand(
    values: list[float], scale: float, data: st.DataObject
) -> None:
    off = data.draw(st.lists(st.sampled_from([0] * 9 + [-1, 1]), min_size=12, max_size=12))
    xs = np.array(values, "<f4").astype(float)
    exact = np.clip(np.rint(xs / scale), -127, 127).astype(int)
    q = [max(-128, min(127, own + more)) for own, more in zip(exact.tolist(), off, strict=False)]
    parent = tensors("F32", w=values)
    found = quantised(bytes_of(len(q), values=q), parent)
    assert found.holds == scale_by_hand(xs.tolist(), q)
    shows = exact.any() or not xs.any()
    assert not shows or quantised(bytes_of(len(q), values=exact), parent).holds


@pytest.mark.parametrize("kind", ["F16", "BF16", "F32"])
def test_what_was_cast_is_the_parents_rounded_to_the_bit(kind: str) -> None:
    own = np.random.default_rng(1).normal(size=(8, 32)).astype("<f4")
    own[0, :4] = [np.nan, np.inf, 1e-9, -0.0]
    parent = {"w": ("F64", (8, 32), own.astype("<f8").reshape(-1) * 1.1)}
    doubles = parent["w"][2]
    cast = {
        "F16": lambda: doubles.astype("<f2"),
        "F32": lambda: doubles.astype("<f4"),
        "BF16": lambda: np.array([0x7FC0, 0x7F80] + [bf16(x) for x in doubles[2:].tolist()], "<u2"),
    }[kind]()
    found = quantised({"w": (kind, (8, 32), cast)}, parent)
    assert found == (256, 0, 0, 0, 1, True)
    assert (
        found.line == "quantised: 256 of 256 entries are the parent's, 256 rounded to the nearest"
    )
    cast.view("<u1")[-2] ^= 1
    found = quantised({"w": (kind, (8, 32), cast)}, parent)
    assert (found[:4], found.holds) == ((255, 0, 0, 1), False)
    assert found.line.startswith("not quantised: 255 of 256 entries are the parent's, ")
    assert found.contradiction == "1 of 256 entries are not the parent's, rounded"
    counter = {"n": ("I64", (), np.zeros(8, "u1"))}
    child, other = {"w": (kind, (8, 32), cast), **counter}, {**parent, **counter}
    assert quantised(child, other).contradiction is not None
    other = {**parent, "n": ("I64", (), np.ones(8, "u1"))}  # a method may have changed it
    assert quantised(child, other).contradiction is None


def test_rows_have_a_scale_each_and_what_is_of_another_parent_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In pieces of a few rows, too."""
    own = np.random.default_rng(2).normal(size=(16, 64)).astype("<f4")
    own *= np.arange(1, 17, dtype="<f4")[:, None]
    parent = {"w": ("F32", own.shape, own.reshape(-1))}
    scales = np.abs(own).max(axis=1, keepdims=True) / 127
    q = np.rint(own / scales)
    for chunk in (files.CHUNK, 200):
        monkeypatch.setattr(files, "CHUNK", chunk)
        found = quantised(bytes_of(16, 64, values=q), parent)
        assert (found, found.holds) == ((0, 0, 1024, 0, 1, False), True)
        whole = quantised(bytes_of(16, 64, values=np.rint(own / scales.max())), parent)
        assert whole == (0, 1024, 0, 0, 1, False)
    wrong = q.copy()
    wrong[3, 5] -= np.sign(wrong[3, 5]) * 2
    assert quantised(bytes_of(16, 64, values=wrong), parent).contradiction is None  # as by GPTQ
    assert quantised(bytes_of(16, 64, values=wrong), parent) == (0, 0, 960, 64, 1, False)
    tuned = {"w": ("F32", own.shape, (own + scales).astype("<f4").reshape(-1))}
    assert quantised(bytes_of(16, 64, values=q), tuned)[:4] == (0, 0, 0, 1024)
    # Short rows take any entries: they are judged as one tensor.
    assert quantised(bytes_of(64, 2, values=q[:2].reshape(64, 2)), {
        "w": ("F32", (64, 2), own[:2].reshape(-1))
    }) == (0, 0, 0, 128, 1, False)  # fmt: skip
    zeros = {"w": ("F32", (4, 16), np.zeros(64, "<f4"))}
    assert quantised(bytes_of(4, 16, values=np.ones(64)), zeros)[:4] == (0, 0, 0, 64)
    nothing = {"w": ("F32", (0, 4), np.zeros(0, "<f4"))}
    assert quantised(bytes_of(0, 4, values=[]), nothing).other == 0
    assert quantised(parent, parent).tensors == 0
