"""Shards that are whole tensors, or are not; ranks that are silent."""

from __future__ import annotations

from typing import Any

import pytest

from provenance.errors import FormatError
from provenance.formats.run_tree.ranks import (
    Piece,
    Region,
    is_sharded,
    named_ranks,
    pieces_of,
    silent_ranks,
    stretches,
    tensor_problem,
)


def piece(rank: int, *axes: tuple[int, int], shape: tuple[int, ...] = (4, 6), **more: Any) -> Piece:
    fields: dict[str, Any] = {"dtype": "F32", "digest": "sha256:00", "sharded": True} | more
    return Piece(rank, "w", fields["dtype"], shape, axes, fields["digest"], fields["sharded"])


@pytest.mark.parametrize(
    "regions",
    [
        [((0, 4), (0, 6))],
        [((0, 4), (0, 6))] * 3,
        [((2, 4), (0, 6)), ((0, 2), (0, 6))],
        [((0, 3), (0, 2)), ((0, 3), (2, 6)), ((3, 4), (0, 5)), ((3, 4), (5, 6))],
        [((0, 4), (0, 6)), ((4, 4), (0, 6)), ((2, 2), (0, 6)), ((1, 2), (3, 3))],  # empty ones
    ],
)
def test_shards_that_are_the_whole(regions: list[Region]) -> None:
    assert tensor_problem([piece(rank, *axes) for rank, axes in enumerate(regions)]) is None


@pytest.mark.parametrize(
    ("regions", "problem"),
    [
        ([((0, 2), (0, 6))], "no rank has [2:4, 0:6]"),
        ([((1, 4), (0, 6))], "no rank has [0:1, 0:6]"),
        ([((0, 1), (0, 6)), ((3, 4), (0, 6))], "no rank has [1:3, 0:6]"),
        ([((0, 4), (0, 3)), ((0, 4), (4, 6))], "no rank has [0:4, 3:4]"),
        ([((0, 2), (0, 6)), ((2, 4), (0, 5))], "no rank has [2:4, 5:6]"),
        ([((0, 4), (0, 4)), ((0, 4), (3, 6))], "shards overlap in [0:4, 3:4]"),
        ([((0, 4), (0, 6)), ((0, 2), (0, 6))], "shards overlap in [0:2, 0:6]"),
        ([((0, 3), (0, 6)), ((2, 4), (0, 6))], "shards overlap in [2:3, 0:6]"),
        ([((4, 4), (0, 6))], "no rank has [0:4, 0:6]"),
    ],
)
def test_a_hole_or_an_overlap_is_named(regions: list[Region], problem: str) -> None:
    assert tensor_problem([piece(rank, *axes) for rank, axes in enumerate(regions)]) == problem


def test_scalars_and_empty_tensors() -> None:
    assert tensor_problem([piece(0, shape=())]) is None
    assert tensor_problem([piece(0, (0, 0), (0, 6), shape=(0, 6))]) is None


def test_copies_that_differ_are_ranks_that_diverged() -> None:
    pieces = [piece(0, (0, 4), (0, 6)), piece(5, (0, 4), (0, 6), digest="sha256:01")]
    assert tensor_problem(pieces) == "ranks 0 and 5 differ in [0:4, 0:6]"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (piece(1, (0, 4), (0, 6), dtype="BF16"), "rank 1 BF16 [4, 6]"),
        (piece(1, (0, 4), (0, 6), shape=(4, 7)), "rank 1 F32 [4, 7]"),
    ],
)
def test_ranks_that_state_another_tensor(other: Piece, words: str) -> None:
    assert tensor_problem([piece(0, (0, 4), (0, 6)), other]) == (
        f"rank 0 states F32 [4, 6], {words}"
    )


def body(**tensor: Any) -> dict[str, Any]:
    own = {"name": "w", "dtype": "F32", "shape": [2, 6], "digest": "sha256:00"} | tensor
    return {"root": "r", "tensors": [own]}


def test_a_record_states_its_pieces() -> None:
    shard = {"global_shape": [4, 6], "offset": [2, 0]}
    assert pieces_of(3, body(shard=shard), "f") == [piece(3, (2, 4), (0, 6))]
    assert pieces_of(3, body(), "f") == [piece(3, (0, 2), (0, 6), shape=(2, 6), sharded=False)]
    assert is_sharded(body(shard=shard))
    for plain in (body(), {}, {"tensors": None}, {"tensors": [7, "shard"]}):
        assert not is_sharded(plain)


@pytest.mark.parametrize(
    ("tensor", "problem"),
    [
        ({"shard": {"global_shape": [4, 6]}}, "offset: found nothing, expected a list"),
        (
            {"shard": {"global_shape": [4, 6], "offset": [3, 0]}},
            "a shard of [2, 6] inside",
        ),
        ({"shard": {"global_shape": [4, 6], "offset": [0]}}, "a shard of [2, 6] inside"),
        ({"shard": {"global_shape": [12], "offset": [0]}}, "a shard of [2, 6] inside"),
        ({"shard": {"global_shape": [4, 6], "offset": [-1, 0]}}, "found -1"),
        ({"shard": {"global_shape": [4, 6], "offset": [True, 0]}}, "found true"),
        ({"shard": {"global_shape": [4, 6], "offset": [0, 0], "x": 1}}, "unknown key"),
        ({"shard": None}, "expected an object"),
        ({"shape": [2, "6"]}, "shape[1]"),
        ({"digest": None}, "expected text"),
    ],
)
def test_a_shard_that_cannot_be_is_refused(tensor: dict[str, Any], problem: str) -> None:
    with pytest.raises(FormatError, match=r"^f: tensors\[0\]\.") as caught:
        pieces_of(0, body(**tensor), "f")
    assert problem in str(caught.value)


def test_ranks_without_metrics_of_an_epoch_are_named_in_stretches() -> None:
    metrics = [(epoch, rank) for epoch in range(1, 9) for rank in range(3)]
    assert silent_ranks(metrics) == []
    assert silent_ranks([]) == []
    gone = {(4, 1), (5, 1), (6, 1), (6, 2), (8, 0)}
    assert silent_ranks(pair for pair in metrics if pair not in gone) == [
        ("epochs 4 to 5", "no metrics from rank 1"),
        ("epoch 6", "no metrics from ranks 1, 2"),
        ("epoch 8", "no metrics from rank 0"),
    ]
    assert silent_ranks([(1, 0), (2, 0)]) == [], "a rank that never recorded any is not expected"
    assert stretches([(1, "a"), (2, "a"), (4, "a"), (5, "b")]) == [
        ("epochs 1 to 2", "a"), ("epoch 4", "a"), ("epoch 5", "b"),
    ]  # fmt: skip


def test_many_ranks_are_counted() -> None:
    assert named_ranks([]) == ""
    assert named_ranks([7]) == "rank 7"
    assert named_ranks(range(30), 5).endswith(", 18, 19 and 15 more")
