"""What a rank hashes of a distributed state: its shards, where they lie, and whose turn it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

from provenance.errors import InputError
from provenance.fingerprint.arrays import raw_tensor
from provenance.fingerprint.shards import HeldState, held_state, state_problems
from provenance.fingerprint.tensors import state_digest, state_tensors, tensor_digest
from provenance.formats.run_tree.ranks import Piece, by_name, pieces_of, tensor_problem

SIZE = 4
FULL = torch.arange(35, dtype=torch.float32).reshape(7, 5)


@contextmanager
def rank_of(rank: int, size: int = SIZE) -> Iterator[None]:
    """This process as one of several, none of which answers: a collective returns at once, and
    what it gives is nonsense."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def own_mesh() -> DeviceMesh:
    """A mesh that is not equal to another rank's: torch keeps what it made for an equal one."""
    return init_device_mesh("cpu", (SIZE,), mesh_dim_names=(f"of rank {dist.get_rank()}",))


def stated(rank: int, held: HeldState | None) -> list[Piece]:
    if held is None:
        return []
    return pieces_of(rank, held.placed(state_digest(held.state).as_fields()), f"rank {rank}")


def on_each_rank(make: Callable[[], object], ranks: str = "auto", epoch: int = 0) -> list[Piece]:
    pieces = []
    for rank in range(SIZE):
        with rank_of(rank):
            pieces += stated(rank, held_state(make(), ranks, rank, SIZE, epoch))
    return pieces


def placed(tensor: torch.Tensor, mesh: tuple[int, ...], placements: list[Any]) -> dict[str, Any]:
    """A state of one tensor that this rank has its part of, made without the others."""
    devices = init_device_mesh("cpu", mesh)
    return {"w": distribute_tensor(tensor, devices, placements, src_data_rank=None)}


LAYOUTS: list[tuple[torch.Tensor, tuple[int, ...], list[Any]]] = [
    (FULL, (4,), [Shard(0)]),  # 2, 2, 2, 1 rows
    (FULL, (4,), [Shard(1)]),  # not contiguous, and the last has one column
    (FULL[:2], (4,), [Shard(0)]),  # two ranks have nothing
    (FULL, (2, 2), [Shard(0), Shard(1)]),
    (FULL, (2, 2), [Shard(0), Shard(0)]),
    (FULL, (2, 2), [_StridedShard(0, split_factor=2), Shard(0)]),  # FSDP2 over tensor parallel
    (FULL, (2, 2), [Replicate(), Shard(0)]),  # HSDP
    (FULL, (4,), [Replicate()]),
    (torch.tensor(3.0), (4,), [Replicate()]),
    (FULL.to(torch.bfloat16), (2, 2), [Shard(1), Replicate()]),
]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", ["auto", "each", "first", "rotating"])
@pytest.mark.parametrize(("full", "mesh", "placements"), LAYOUTS)
def test_shards_are_slices_and_together_the_whole(
    full: torch.Tensor, mesh: tuple[int, ...], placements: list[Any], ranks: str
) -> None:
    pieces = on_each_rank(lambda: placed(full, mesh, placements), ranks, epoch=3)
    assert tensor_problem(pieces) is None
    for piece in pieces:
        assert piece.sharded
        assert piece.shape == tuple(full.shape)
        own = full[tuple(slice(*axis) for axis in piece.region)]
        assert piece.digest == str(tensor_digest("w", own).digest)
    copies = [n for n, place in zip(mesh, placements, strict=True) if place.is_replicate()]
    assert len(pieces) == SIZE // (1 if ranks == "each" or not copies else copies[0])
    assert state_problems([pieces], state_tensors({"w": full})) == [{"w": None}]


def test_the_turn_goes_around_among_copies() -> None:
    for epoch, turn in ((0, {0, 1}), (1, {2, 3}), (2, {0, 1})):
        pieces = on_each_rank(
            lambda: placed(FULL, (2, 2), [Replicate(), Shard(0)]), "rotating", epoch
        )
        assert {piece.rank for piece in pieces} == turn
    pieces = on_each_rank(lambda: placed(FULL, (2, 2), [Replicate(), Shard(0)]), "auto", 1)
    assert {piece.rank for piece in pieces} == {0, 1}


def test_a_module_that_fsdp2_shards_keeps_its_names_and_each_rank_its_buffers() -> None:
    def make() -> torch.nn.Module:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7))
        return fully_shard(model, mesh=own_mesh())

    names = set(torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7)).state_dict())
    pieces = on_each_rank(make)
    assert all(tensor_problem(own) is None for own in by_name(pieces).values())
    for rank in range(SIZE):
        assert {piece.name for piece in pieces if piece.rank == rank} == names
    assert {p.name for p in pieces if not p.sharded} == {
        "1.running_mean", "1.running_var", "1.num_batches_tracked",
    }  # fmt: skip
    alone = [p.rank for p in on_each_rank(make, "rotating", 6) if p.name == "1.running_mean"]
    assert alone == [2]


def test_parameters_that_a_forward_pass_gathered_stay_gathered() -> None:
    """Freed on one rank alone, the next forward pass would wait for those that are not freed."""
    with rank_of(1):
        model: Any = fully_shard(torch.nn.Linear(5, 7), mesh=own_mesh())
        shards = stated(1, held_state(model))
        with torch.no_grad():
            model(torch.zeros(2, 5))
        assert not isinstance(model.weight, DTensor)
        assert stated(1, held_state(model)) == shards
        assert not isinstance(model.weight, DTensor)
        assert {piece.region for piece in shards} == {((2, 4), (0, 5)), ((2, 4),)}
        model.state_dict()
        assert isinstance(model.weight, DTensor), "what a state_dict() would have done"


@pytest.mark.parametrize(
    ("ranks", "wrapped", "plain"),
    [
        ("auto", [0], [0, 1, 2, 3]),
        ("each", [0, 1, 2, 3], [0, 1, 2, 3]),
        ("first", [0], [0]),
        ("rotating", [2], [2]),
    ],
)
def test_who_hashes_a_state_that_all_ranks_have(
    ranks: str, wrapped: list[int], plain: list[int]
) -> None:
    for make, turn in (
        (lambda: DistributedDataParallel(torch.nn.Linear(2, 2)), wrapped),
        (lambda: torch.nn.Linear(2, 2).state_dict(), plain),
    ):
        pieces = on_each_rank(make, ranks, epoch=6)
        assert sorted({piece.rank for piece in pieces}) == turn
        assert not any(piece.sharded for piece in pieces)
        assert {piece.name for piece in pieces} == {"weight", "bias"}


def test_a_path_is_hashed_in_turn() -> None:
    assert held_state("model.safetensors", "auto", 1, 2, 0) == HeldState("model.safetensors", {})
    assert held_state("model.safetensors", "first", 1, 2, 0) is None
    assert held_state("model.safetensors", "rotating", 1, 2, 1) is not None


@pytest.mark.parametrize(
    "placements",
    [
        [Partial(), Shard(0)],
        [Shard(0), Partial("avg")],
        [_StridedShard(0, split_factor=2), Replicate()],  # rows 0, 1, 4, 5: two pieces
    ],
    ids=str,
)
def test_what_is_no_shard_in_one_piece_is_refused_by_name(placements: list[Any]) -> None:
    with rank_of(0):
        mesh = init_device_mesh("cpu", (2, 2))
        tensor = DTensor.from_local(torch.zeros(4, 5), mesh, placements, run_check=False)
        with pytest.raises(InputError, match=r"tensor 'a\.w': found placement (P|_S|S)"):
            held_state({"a": {"w": tensor}})


def test_a_module_whose_state_all_ranks_must_read_together_is_refused() -> None:
    with rank_of(0):
        inner = FullyShardedDataParallel(torch.nn.Linear(2, 2), device_id=torch.device("cpu"))
        with pytest.raises(InputError, match="FSDP1"):
            held_state(torch.nn.Sequential(inner))


def test_a_rank_outside_of_the_mesh_has_nothing() -> None:
    with rank_of(3):
        mesh = dist.device_mesh.DeviceMesh("cpu", [0, 1])
        assert (
            held_state({"w": DTensor.from_local(FULL, mesh, [Shard(0)], run_check=False)}) is None
        )


# --- a state at hand ---------------------------------------------------------------------------


def pieces(full: torch.Tensor = FULL) -> list[Piece]:
    return on_each_rank(lambda: placed(full, (2, 2), [Shard(0), Shard(1)]), "each")


@pytest.mark.parametrize("form", ["whole", "strided", "big-endian"])
def test_one_bit_of_a_state_is_found_in_its_shard(form: str) -> None:
    state = FULL.numpy().copy()
    state.view(np.uint8)[6, -1] ^= 1
    if form == "strided":
        state = np.asfortranarray(state)
    elif form == "big-endian":
        state = state.astype(">f4")
    (problems,) = state_problems([pieces()], [raw_tensor("w", state)])
    assert problems["w"] is not None
    assert " in [4:7, 3:5], rank 3 states blake3:" in problems["w"]
    (problems,) = state_problems([pieces()], [raw_tensor("w", np.asfortranarray(FULL.numpy()))])
    assert problems == {"w": None}


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ({}, "is missing"),
        ({"w": FULL.double()}, "is F64 [7, 5], the record states F32 [7, 5]"),
        ({"w": FULL.T.contiguous()}, "is F32 [5, 7], the record states F32 [7, 5]"),
    ],
    ids=["missing", "dtype", "shape"],
)
def test_what_else_differs_is_said(state: dict[str, Any], problem: str) -> None:
    tensors = [raw_tensor(name, value) for name, value in {**state, "x": FULL}.items()]
    assert state_problems([pieces()], tensors) == [{"w": problem, "x": "is not in the record"}]


def test_a_state_that_is_not_whole_cannot_be_compared() -> None:
    (problems,) = state_problems([pieces()[:3]], [raw_tensor("w", FULL)])
    assert problems == {"w": "cannot be compared: no rank has [4:7, 3:5]"}
    odd = [piece._replace(digest="md5:00") for piece in pieces()]
    (problems,) = state_problems([odd], [raw_tensor("w", FULL)])
    assert problems["w"] is not None
    assert "rank 0 states md5:00" in problems["w"]
