"""Flax models and JAX trees by path.

WARNING: FROZEN FORMAT (docs/FORMAT.md, section 3.3). JAX and Flax are never imported here.

========================  ======================================================================
nnx.Module, nnx.State     each variable, random keys among them
struct dataclass          such as TrainState: each field that is part of the tree
linen params, optax       mappings and named tuples, in :func:`named.tree_values`
========================  ======================================================================
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from provenance.fingerprint.arrays import type_name
from provenance.fingerprint.named import Named, tree_values
from provenance.formats.record import Json


def nnx_values(model: Any) -> Named:
    """The state of an ``nnx.Module``, or an ``nnx.State``, by path."""
    nnx = sys.modules["flax.nnx"]
    state = model if isinstance(model, nnx.State) else nnx.state(model)
    values: list[tuple[str, Any]] = []
    buffers: list[str] = []
    for path, variable in nnx.to_flat_state(state):
        name = ".".join(map(str, path))
        kind = getattr(variable, "type", type(variable))
        value = variable.get_value() if hasattr(variable, "get_value") else variable
        value = getattr(value, "value", value)
        if not (isinstance(kind, type) and issubclass(kind, nnx.Param)):
            buffers.append(name)
        values.append((name, value))
    covers: dict[str, Json] = {"adapter": "flax.nnx", "of": ["variables"]}
    return Named(values, covers, buffers=frozenset(buffers), ties=True)


def struct_values(state: Any) -> Named:
    """A ``flax.struct.dataclass``, such as a TrainState, by its fields. Raises InputError: a field
    of the tree that holds something else than arrays and numbers."""
    fields = dataclasses.fields(state)
    inside = [f.name for f in fields if f.metadata.get("pytree_node", True)]
    outside = [f.name for f in fields if f.name not in inside]
    named = tree_values({name: getattr(state, name) for name in inside}, plain=True)
    held: list[Json] = [name for name in inside if getattr(state, name) is not None]
    covers: dict[str, Json] = {"adapter": type_name(state), "of": held}
    if outside:
        covers["not"] = {"fields": list(outside)}
    counted = [n for n, _ in named.values if n.startswith("params.")]
    buffers = frozenset(n for n, _ in named.values if counted and not n.startswith("params."))
    return named._replace(covers=covers, buffers=buffers)
