"""The arrays of a model in memory, by dotted name, and what of the model they cover.

WARNING: FROZEN FORMAT, as in tensors.py: names are part of the digests. No I/O, no clock, no
randomness.

An adapter knows one framework's models. It is chosen by the classes that a model inherits from,
once for each model. What has no adapter is refused by name; what an adapter leaves out it says
in ``covers``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from provenance.errors import InputError
from provenance.fingerprint.arrays import (
    RawTensor,
    is_array,
    kind_of,
    raw_bytes,
    raw_float,
    raw_text,
    type_name,
    var_chunks,
)
from provenance.fingerprint.fitted.boosters import booster_values, library_of
from provenance.fingerprint.fitted.estimators import estimator_values
from provenance.formats.record import Json

MORE_THAN_TENSORS: Final = (
    "_extra_state", "_packed_params._packed_params", "_packed_params.dtype",
)  # fmt: skip
"""How names in a state dict of torch end whose values need not be tensors."""
MAX_DEPTH: Final = 32
"""Levels of nested dicts, lists and estimators that are searched for tensors."""


class Named(NamedTuple):
    """A model's arrays by name, and what of the model they cover.

    Args:
        values: Each array, or what stands in its place, with its name; a tied one under each of
            its names.
        covers: ``adapter``, ``of`` (what of the model is in the values), and what else the
            adapter has to say: ``not`` (what of it is not in them), ``unwrapped``.
        aliases: Other names of arrays, by the name in ``values``: those that files have for them.
        buffers: Names of what the framework does not count as parameters.
        ties: Whether an array with several names counts once.
    """

    values: list[tuple[str, Any]]
    covers: dict[str, Json]
    aliases: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    buffers: frozenset[str] = frozenset()
    ties: bool = False

    def below(self, path: str) -> Named:
        """The same with names below ``path``."""
        if not path:
            return self
        return Named(
            [(_joined(path, name), value) for name, value in self.values],
            self.covers,
            {
                _joined(path, name): tuple(_joined(path, other) for other in others)
                for name, others in self.aliases.items()
            },
            frozenset(_joined(path, name) for name in self.buffers),
            self.ties,
        )


def named_values(model: object) -> Named:
    """The arrays of a model in memory, and what of it they cover. Raises InputError: no adapter
    knows it, or a part of it."""
    if is_array(model):
        return Named([("", model)], {"adapter": type_name(model), "of": ["elements"]})
    if (found := _adapted(model)) is not None:
        return found
    if isinstance(model, Mapping) and any(str(key).endswith(MORE_THAN_TENSORS) for key in model):
        from provenance.fingerprint.networks.torch_module import state_values

        return state_values(model)
    if isinstance(model, Mapping | list | tuple):
        return tree_values(model)
    raise InputError(
        f"model: found {type_name(model)}, expected a mapping of names to arrays, a module with"
        " state_dict(), a fitted estimator, a booster, or the path of a file of weights"
    )


def _adapted(model: Any) -> Named | None:
    """By the adapter for its class; None where there is none."""
    adapter = _adapter_of(model.__class__)
    module, _, function = adapter.partition(".")
    if function:
        of_network = import_module(f"provenance.fingerprint.networks.{module}")
        values: Named = getattr(of_network, function)(model)
        return values
    if adapter == "state_dict":
        state = model.state_dict()
        if not isinstance(state, Mapping | list | tuple):
            found = f"{type_name(model)}.state_dict() gives {type_name(state)}"
            raise InputError(f"model: {found}, expected a mapping")
        whole = tree_values(state)
        return whole._replace(covers={"adapter": type_name(model), "of": ["state_dict()"]})
    if library_of(model.__class__):
        return Named(*booster_values(model))
    kind = model.__class__  # an object may make up what it is asked for
    if callable(getattr(kind, "fit", None)) and callable(getattr(kind, "get_params", None)):
        return Named(*estimator_values(model))
    return None


_ADAPTERS: Final = (
    ("keras.src.layers.layer.Layer", "keras_model.keras_values"),  # on torch a module too
    ("torch.nn.modules.module.Module", "torch_module.module_values"),
    ("torch.export.exported_program.ExportedProgram", "torch_module.program_values"),
    ("flax.nnx.module.Module", "flax_model.nnx_values"),
    ("flax.nnx.pytreelib.Pytree", "flax_model.nnx_values"),
    ("flax.nnx.statelib.State", "flax_model.nnx_values"),
)
"""Adapter by the class that a model inherits from, the first one counts: a function in `networks`,
whose module is imported when its first model comes."""


@lru_cache(maxsize=256)
def _adapter_of(kind: Any) -> str:
    """Which adapter knows a class; empty: none does by the class alone."""
    bases = {f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__}
    for base, adapter in _ADAPTERS:
        if base in bases:
            return adapter
    if getattr(kind, "_flax_dataclass", False):
        return "flax_model.struct_values"
    return "state_dict" if callable(getattr(kind, "state_dict", None)) else ""


def tree_values(tree: object, plain: bool = False) -> Named:
    """What is in nested mappings and sequences by dotted path, models among it.

    Args:
        plain: Whether texts, numbers, truth values, None and containers count, each as a tensor;
            else all but containers is refused later, as all is that is no array.
    """
    found, models, plain_names = Named([], {}), dict[str, Named](), set[str]()
    _tree(found, models, tree, "", 0, plain_names if plain else None)
    inner = [model.below(path) for path, model in models.items()]
    kind = "mapping" if isinstance(tree, Mapping) else "sequence"
    covers: dict[str, Json] = {"adapter": kind, "of": ["arrays"]}
    if models:
        covers["models"] = {path: model.covers for path, model in models.items()}
    return Named(
        found.values + [pair for model in inner for pair in model.values],
        covers,
        {name: others for model in inner for name, others in model.aliases.items()},
        frozenset(plain_names.union(*(model.buffers for model in inner))),
        ties=True,
    )


def _tree(
    found: Named,
    models: dict[str, Named],
    value: Any,
    path: str,
    depth: int,
    plain: set[str] | None,
) -> None:
    """Add what is in nested mappings and sequences; what is no array is refused later. ``plain``
    takes the names of plain values, where these count."""
    if depth > MAX_DEPTH:
        raise InputError(f"model: {path!r} is nested deeper than {MAX_DEPTH} levels")
    items: Iterable[tuple[Any, Any]]
    if isinstance(value, Mapping):
        items = value.items()
    else:  # of a named tuple, such as a state of optax, by its fields
        fields = getattr(value, "_fields", None)
        items = zip(fields, value, strict=True) if fields else enumerate(value)
    for key, item in items:
        if key.__class__ is not str and not isinstance(key, str | int):
            raise InputError(f"model: {path!r} has a key {key!r}, expected a name")
        name = f"{path}.{key}" if path else str(key)
        kind = _kind_of(item.__class__)
        if kind == "array":
            found.values.append((name, item))
        elif kind == "nested":
            if plain is not None:
                found.values.append((name, _container(name, item)))
                plain.add(name)
            _tree(found, models, item, name, depth + 1, plain)
        elif kind == "plain" and plain is not None:
            found.values.append((name, _plain(name, item)))
            plain.add(name)
        elif not is_array(item) and (model := _adapted(item)) is not None:
            models[name] = model
        else:
            found.values.append((name, item))


@lru_cache(maxsize=256)
def _kind_of(kind: Any) -> str:
    """What a class in a tree is: ``array``, ``nested``, ``plain``; empty: to be looked at."""
    if kind is RawTensor or kind_of(kind) != "other":
        return "array"
    if issubclass(kind, Mapping | list | tuple):
        return "nested"
    return "plain" if issubclass(kind, str | bytes | int | float | type(None)) else ""


def _plain(name: str, value: Any) -> RawTensor:
    """A plain value as a tensor: BOOL, I64, F64, UTF8 or BYTES with shape ``[]``; None as no
    text, UTF8 with shape ``[0]``."""
    if isinstance(value, bool):
        return raw_bytes(name, "BOOL", (), [bytes([value])])
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise InputError(f"tensor {name!r}: found an integer that 64 bits do not hold")
        return raw_bytes(name, "I64", (), [value.to_bytes(8, "little", signed=True)])
    if isinstance(value, float):
        return raw_float(name, value)
    if isinstance(value, bytes):
        return raw_bytes(name, "BYTES", (), var_chunks([value]))
    return raw_text(name, [] if value is None else [value], () if value is not None else (0,))


def _container(name: str, value: Any) -> RawTensor:
    """What a container among plain values is, as a tensor: its names alone do not tell a list from
    a mapping, nor a key that is a number or has a dot."""
    texts = ["list"]
    if isinstance(value, Mapping):
        keys = sorted(f"{'int' if isinstance(key, int) else 'str'} {key}" for key in value)
        texts = ["mapping", *keys]
    return raw_text(name, texts, (len(texts),))


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
