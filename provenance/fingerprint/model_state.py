"""A model's tensors as they are hashed: sorted, each array once, with its other names.

WARNING: FROZEN FORMAT, as in tensors.py. Nothing is read here but where an array lies: tied
weights are arrays of one memory, read in one way. torch is never imported.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final

from provenance.errors import InputError
from provenance.fingerprint.arrays import kind_of, type_name
from provenance.fingerprint.named import Named, named_values
from provenance.formats.record import Json

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
TRAINABLE: Final = "trainable parameters and buffers"
"""``covers.only`` of :func:`trained_state`."""


class ModelState(dict[str, Any]):
    """A model's tensors as they are hashed: by name in the order of the names' bytes, each array
    once.

    Args:
        values: The arrays by name.
        aliases: Other names that an array has, by its name: tied weights, and the names that
            files have for it.
        covers: What of the model the arrays are (`Named`).
        buffers: Names of what the framework does not count as parameters.
        sizes: Elements of the whole, for the arrays that one tensor is made of.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        aliases: Mapping[str, tuple[str, ...]] = NOTHING,
        covers: Mapping[str, Json] = NOTHING,
        buffers: frozenset[str] = frozenset(),
        sizes: Mapping[str, int] = NOTHING,
    ) -> None:
        super().__init__(values)
        self.aliases, self.covers, self.buffers, self.sizes = aliases, covers, buffers, sizes

    def holding(self, values: Mapping[str, Any]) -> ModelState:
        """The same with other arrays, or fewer."""
        return ModelState(values, self.aliases, self.covers, self.buffers, self.sizes)


def trained_state(model: object) -> ModelState:
    """What training changes of a module: the parameters that take a gradient, and the buffers. Of
    any other model all."""
    state = model_state(model)
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        return state
    found = state.holding(
        {
            name: value
            for name, value in state.items()
            if name in state.buffers or getattr(value, "requires_grad", True)
        }
    )
    if all(name in state.buffers for name in found):
        raise InputError(f"model: no parameter of {type_name(model)} takes a gradient")
    found.covers = {**state.covers, "only": TRAINABLE}
    found.aliases = {name: others for name, others in state.aliases.items() if name in found}
    return found


def model_state(model: object) -> ModelState:
    """The tensors of a model in memory, none of which is read."""
    if isinstance(model, ModelState):
        return model
    named = model if isinstance(model, Named) else named_values(model)
    pairs = sorted(named.values, key=_NAME)
    if not pairs:
        raise InputError(f"model: {type_name(model)} has no tensors, expected at least one")
    _refuse_twice(pairs)
    if "deepspeed" in sys.modules:
        _refuse_parts(pairs, named.buffers)
    buffers, sizes = named.buffers, NOTHING
    places = _places(pairs)
    if places is None:
        pairs, buffers, sizes = _in_parts(pairs, buffers)
        places = _places(pairs) or list(map(id, pairs))
    values, aliases = dict(pairs), named.aliases
    if named.ties and len(set(places)) != len(places) and (tied := _tied(pairs, places)):
        aliases = {**aliases}
        for first, *others in tied:
            known = [other for name in others for other in aliases.pop(name, ())]
            own = {*others, *known, *aliases.get(first, ())}
            aliases[first] = tuple(sorted(own - {first}))
            for name in others:
                del values[name]
        buffers -= {name for _, *others in tied for name in others}
    return ModelState(values, aliases, named.covers, buffers, sizes)


_NAME: Final = itemgetter(0)
"""Of a pair: texts sort by their code points as by their UTF-8 bytes."""


def _places(pairs: list[tuple[str, Any]]) -> list[object] | None:
    """What tells whether two arrays are one; None where a tensor is made of several arrays, or
    has none."""
    torch = sys.modules.get("torch")
    if torch is None:
        return [id(value) for _, value in pairs]
    tensors = {kind for kind in {value.__class__ for _, value in pairs} if _in_memory(kind)}
    try:
        own = [value for _, value in pairs if value.__class__ in tensors]
        odd = {value.dtype for value in own} & _quantised_dtypes()
        if odd or True in {value.is_nested for value in own}:
            return None
        return [value.data_ptr() if value.__class__ in tensors else id(value) for _, value in pairs]
    except (RuntimeError, ValueError):  # sparse, lazy
        return None


@lru_cache(maxsize=256)
def _in_memory(kind: Any) -> bool:
    torch = sys.modules["torch"]
    lazy = getattr(torch.nn.parameter, "UninitializedTensorMixin", ())
    return kind_of(kind) == "tensor" or issubclass(kind, lazy)


@lru_cache(maxsize=1)
def _quantised_dtypes() -> frozenset[Any]:
    torch = sys.modules["torch"]
    names = ("qint8", "quint8", "qint32", "quint4x2", "quint2x4")
    return frozenset(getattr(torch, name) for name in names if hasattr(torch, name))


def _in_parts(
    pairs: list[tuple[str, Any]], buffers: frozenset[str]
) -> tuple[list[tuple[str, Any]], frozenset[str], dict[str, int]]:
    """Tensors that are several arrays as these: the first has the size of the whole, the others
    none."""
    from provenance.fingerprint.networks.torch_parts import tensor_parts

    found, own, sizes = list[tuple[str, Any]](), set(buffers), dict[str, int]()
    for name, value in pairs:
        parts = tensor_parts(name, value) if _in_memory(value.__class__) else [(name, value)]
        found += parts
        if len(parts) > 1:
            names = [part for part, _ in parts]
            sizes |= {**dict.fromkeys(names, 0), names[0]: value.numel()}
            if name in buffers:
                own |= set(names)
    found.sort(key=_NAME)
    _refuse_twice(found)
    return found, frozenset(own), sizes


def _refuse_twice(pairs: list[tuple[str, Any]]) -> None:
    for (name, _), (other, _) in pairwise(pairs):
        if name == other:
            raise InputError(f"model: two tensors have the name {name!r}")


def _refuse_parts(pairs: list[tuple[str, Any]], buffers: frozenset[str]) -> None:
    """ZeRO-3 leaves an empty tensor in place of a parameter: the parameter itself is marked
    (``ds_shape``), its copy in a ``state_dict()`` is not."""
    torch: Any = sys.modules.get("torch")
    for name, value in pairs:
        if torch is None or not isinstance(value, torch.Tensor) or value.shape != (0,):
            continue
        detached = not isinstance(value, torch.nn.Parameter) and name not in buffers
        if detached or hasattr(value, "ds_shape"):
            raise InputError(
                f"tensor {name!r}: found a part of DeepSpeed's ZeRO-3, expected the whole: gather "
                "it first (deepspeed.zero.GatheredParameters)"
            )


def _tied(pairs: list[tuple[str, Any]], places: list[object]) -> list[list[str]]:
    """The names of each tensor that has several: one array, or one memory of torch's that is
    read in one way."""
    names: dict[object, list[str]] = {}
    for place, (name, value) in zip(places, pairs, strict=True):
        read: tuple[object, ...] = ()
        if kind_of(value.__class__) == "tensor":
            read = (value.device, value.dtype, value.shape, value.stride(), value.nbytes or name)
            read = (*read, value.is_conj(), value.is_neg())
            read = (*read, name) if value.is_meta else read
        names.setdefault((place, *read), []).append(name)
    return [group for group in names.values() if len(group) > 1]
