"""The part of a distributed state that this rank has, and shards of a state at hand.

WARNING: FROZEN FORMAT (docs/FORMAT.md, section 3.3). Nothing is gathered and nobody is waited
for: no collective is called, so that ranks may call this alone. torch is never imported here.

Of a ``DTensor`` (FSDP2 ``fully_shard``, tensor parallel) each rank hashes its local shard. Where
a dimension of its mesh holds copies (``Replicate``), and where all ranks hold the state
(``DistributedDataParallel``), ``weight_digests.ranks`` says whose turn it is:

===========  ==================================================================================
``auto``     the first copy; a state that is not known to be a copy: each rank
``each``     each copy, so that a verification sees where they differ
``first``    the first copy; of what is no ``DTensor`` rank 0
``rotating`` copy ``epoch % copies``, so that the work goes around
===========  ==================================================================================
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from provenance.errors import InputError
from provenance.fingerprint.arrays import ITEM_BYTES, RawTensor, load_numpy
from provenance.fingerprint.hashers import DIGEST_SIZES, HashFactory
from provenance.fingerprint.model_state import model_state
from provenance.fingerprint.named import Named, named_values
from provenance.fingerprint.tensors import tensor_digest
from provenance.formats.run_tree.ranks import Piece, Region, by_name, shown, tensor_problem

Place = tuple[tuple[int, ...], tuple[int, ...]]
"""Shape of a whole tensor, and where in it a shard begins along each axis."""


class HeldState(NamedTuple):
    """What this rank hashes: the model as it was given, or its tensors by name; and the place of
    each shard among them."""

    state: object
    places: Mapping[str, Place]

    def placed(self, fields: dict[str, Any]) -> dict[str, Any]:
        """``StateDigest.as_fields()`` of the state, with the places."""
        tensors = []
        for tensor in fields["tensors"]:
            if (place := self.places.get(tensor["name"])) is not None:
                shard = {"global_shape": list(place[0]), "offset": list(place[1])}
                tensor = {**tensor, "shard": shard}
            tensors.append(tensor)
        return {**fields, "tensors": tensors}


def held_state(
    model: Any, ranks: str = "each", rank: int = 0, world_size: int = 1, epoch: int = 0
) -> HeldState | None:
    """What this rank hashes of a model, as `state_digest` takes it; None where it is the turn of
    others. ``ranks`` is the setting.

    Raises:
        InputError: A tensor that is a sum still to be made (``Partial``), or lies in pieces; a
            module whose state only all ranks together can read (FSDP1).
        Whatever the model's ``state_dict()`` raises.
    """
    fsdp = _class("torch.distributed.fsdp", "FullyShardedDataParallel")
    is_module = isinstance(model, _class("torch.nn", "Module")) and fsdp
    if is_module and any(isinstance(part, fsdp) for part in model.modules()):
        raise InputError(
            "model: found FullyShardedDataParallel (FSDP1), whose state_dict() waits for all "
            "ranks; expected fully_shard (FSDP2), or a state dict that you gathered"
        )
    is_copy = isinstance(model, _class("torch.nn.parallel", "DistributedDataParallel"))
    alone = ranks == "auto" and not is_copy
    own_turn = alone or _turn(ranks, epoch, world_size) in (None, rank)
    named, kind = Named([], {}), _class("torch.distributed.tensor", "DTensor")
    # Without a process group there is no DTensor.
    if kind and sys.modules["torch.distributed"].is_initialized():
        is_path = isinstance(model, str | os.PathLike)
        named = named if is_path else _module_values(model) if is_module else named_values(model)
    if not any(isinstance(value, kind) for _, value in named.values):
        return HeldState(model, {}) if own_turn else None
    state: dict[str, object] = {}
    places: dict[str, Place] = {}
    whole = model_state(named)
    for name, value in whole.items():
        if not isinstance(value, kind):
            if own_turn:
                state[name] = value
        elif (place := _place(name, value, ranks, epoch)) is not None:
            with sys.modules["torch"].no_grad():
                state[name], places[name] = value.to_local(), place
    return HeldState(whole.holding(state), places) if state else None


def _module_values(model: Any) -> Named:
    """`named_values` of a module that leaves gathered parameters as they are.

    A forward pass without a backward one leaves parameters of FSDP2 gathered, and ``state_dict()``
    frees them: on this rank alone, so that the next collective would not be that of the others.
    Here its hook takes them for freed, and their shards, which FSDP2 keeps beside, stand for them.
    """
    kind = _class("torch.distributed.fsdp", "FSDPModule")
    states = [vars(part._get_fsdp_state()) for part in model.modules() if isinstance(part, kind)]
    alone = "_fsdp_param_group"  # of older releases
    groups = [g for own in states for g in own.get("_fsdp_param_groups", [own.get(alone)]) if g]
    gathered = [(group, group._sharded_state) for group in groups if not group.is_sharded]
    shards: dict[int, Any] = {}
    try:
        for group, state in gathered:
            for param in group.fsdp_params:
                info = param._module_info
                shards[id(getattr(info.module, info.param_name))] = param.sharded_param
            group._sharded_state = type(state).SHARDED
        named = named_values(model)
    finally:
        for group, state in gathered:
            group._sharded_state = state
    if not shards:
        return named
    values = [(name, shards.get(id(value), value)) for name, value in named.values]
    return named._replace(values=values)


def _class(module: str, name: str) -> Any:
    """A class of torch for `isinstance`; that of nothing while its module is not loaded."""
    return getattr(sys.modules.get(module), name, ())


def _turn(ranks: str, epoch: int, copies: int) -> int | None:
    """Which of several copies is hashed; None: each."""
    if ranks == "each":
        return None
    return epoch % copies if ranks == "rotating" else 0


def _place(name: str, tensor: Any, ranks: str, epoch: int) -> Place | None:
    """Where this rank's shard lies; None where it has none, or the shard is another's to hash."""
    mesh, placements = tensor.device_mesh, tensor.placements
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        return None
    own_turn = True
    later: dict[int, int] = {}  # by axis, the shards that placements further right make
    for at in reversed(range(len(placements))):
        placement = placements[at]
        if placement.is_replicate():
            own_turn &= _turn(ranks, epoch, mesh.size(at)) in (None, coordinate[at])
            continue
        axis = getattr(placement, "dim", None)
        # A strided shard lies in one piece only where the axis was split from right to left.
        stride = getattr(placement, "split_factor", 1)
        if placement.is_partial() or axis is None or stride not in (1, later.get(axis, 1)):
            raise InputError(
                f"tensor {name!r}: found placement {placement} among {placements}, expected "
                "shards in one piece, or copies"
            )
        later[axis] = later.get(axis, 1) * mesh.size(at)
    return _placed(tensor.shape, mesh, placements, tuple(coordinate)) if own_turn else None


@lru_cache(maxsize=4096)
def _placed(shape: Any, mesh: Any, placements: Any, _coordinate: Any) -> Place:
    """As torch.distributed.checkpoint works it out, for the coordinate that this rank has."""
    utils = sys.modules["torch.distributed.tensor._utils"]
    _, offset = utils.compute_local_shape_and_global_offset(shape, mesh, placements)
    return tuple(shape), tuple(offset)


# --- shards against a state at hand ----------------------------------------------------------


def state_problems(
    groups: Sequence[Iterable[Piece]], tensors: Iterable[RawTensor]
) -> list[dict[str, str | None]]:
    """How a state at hand differs from each of those that ranks stated, by tensor in order; None
    where it does not.

    Where tensors have one name, what differs of any of them stands. Of a tensor that ranks do not
    share counts what the lowest of them states, as in the full state dict that torch makes on rank
    0. Raises InputError, FormatError: as the tensors do."""
    stated = [by_name(pieces) for pieces in groups]
    found: list[dict[str, str | None]] = [dict.fromkeys(own, "is missing") for own in stated]
    for tensor in tensors:
        digest_of = _digests_of(tensor)
        for own, problems in zip(stated, found, strict=True):
            if tensor.name not in own:
                problems[tensor.name] = "is not in the record"
            elif problems[tensor.name] in (None, "is missing"):
                problems[tensor.name] = _differs(own[tensor.name], tensor, digest_of)
    return [dict(sorted(problems.items())) for problems in found]


def _differs(
    pieces: Sequence[Piece], tensor: RawTensor, digest_of: Callable[[Region, str], str | None]
) -> str | None:
    if not any(piece.sharded for piece in pieces):
        pieces = pieces[:1]
    own, first = f"{tensor.dtype} {list(tensor.shape)}", pieces[0]
    if own != (stated := f"{first.dtype} {list(first.shape)}"):
        return f"is {own}, the record states {stated}"
    if (problem := tensor_problem(pieces)) is not None:
        return f"cannot be compared: {problem}"
    for piece in pieces:
        digest = digest_of(piece.region, piece.digest.partition(":")[0])
        if digest != piece.digest:
            where = f"in {shown(piece.region)}, rank {piece.rank}"
            return f"has digest {digest} {where} states {piece.digest}"
    return None


def _digests_of(tensor: RawTensor) -> Callable[[Region, str], str | None]:
    """From a part of a tensor, and an algorithm, to its digest as a tensor of its own."""
    whole = tuple((0, size) for size in tensor.shape)

    @cache
    def items() -> Any:
        numpy = load_numpy()
        if tensor.memory is None:  # a chunk holds until the next is asked for
            data: Any = b"".join(map(bytes, tensor.chunks()))
        else:
            data = next(tensor.chunks(), b"")
        flat = numpy.frombuffer(data, "u1") if data else numpy.empty(0, "u1")
        return flat.reshape(*tensor.shape, ITEM_BYTES[tensor.dtype])

    @cache
    def digest_of(region: Region, algorithm: str) -> str | None:
        if algorithm not in DIGEST_SIZES or not (region == whole or tensor.dtype in ITEM_BYTES):
            return None
        part = tensor
        if region != whole:
            held = load_numpy().ascontiguousarray(items()[tuple(slice(*axis) for axis in region)])
            part = RawTensor(tensor.name, tensor.dtype, held.shape[:-1], held.nbytes, held)
        return str(tensor_digest(tensor.name, part, HashFactory(algorithm)).digest)

    return digest_of
