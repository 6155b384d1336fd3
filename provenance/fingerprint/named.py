"""The arrays of a model in memory, by dotted name.

WARNING: FROZEN FORMAT, as in tensors.py: names are part of the digests. No I/O, no clock, no
randomness.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from provenance.errors import InputError
from provenance.fingerprint.arrays import (
    Array,
    RawTensor,
    from_package,
    is_array,
    load_numpy,
    raw_float,
    raw_text,
    type_name,
)

MAX_DEPTH: Final = 32
"""Levels of nested dicts, lists and estimators that are searched for tensors."""

# What an estimator keeps of its training beside the model: gradients' moments, random state.
_NOT_THE_MODEL: Final = frozenset({"_optimizer", "_random_state"})
# sklearn.tree's compiled Tree has no __dict__; its arrays are these properties.
_TREE_ARRAYS: Final = (
    "children_left", "children_right", "feature", "threshold", "impurity",
    "n_node_samples", "weighted_n_node_samples", "value", "missing_go_to_left",
)  # fmt: skip


def named_values(model: object) -> list[tuple[str, object]]:
    """The tensors of a model in memory, or what stands in their place, each with its name."""
    found: list[tuple[str, object]] = []
    if is_array(model):
        found.append(("", model))
    elif callable(getattr(model, "state_dict", None)):
        _tree(found, model.state_dict(), "", 0)  # type: ignore[attr-defined]  # a module, by its method
    elif isinstance(model, Mapping | list | tuple):
        _tree(found, model, "", 0)
    elif callable(getattr(model, "fit", None)) and callable(getattr(model, "get_params", None)):
        found += _attributes(model, "", type(model).__module__.partition(".")[0], ())
    else:
        raise InputError(
            f"model: found {type_name(model)}, expected a mapping of names to arrays, a module with"
            " state_dict(), a fitted estimator, or the path of a .safetensors or .npz file"
        )
    return found


def _tree(found: list[tuple[str, object]], value: object, path: str, depth: int) -> None:
    """Add what is in nested mappings and sequences; what is no array is refused later."""
    if depth > MAX_DEPTH:
        raise InputError(f"model: {path!r} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        items: Iterable[tuple[object, object]] = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        found.append((path, value))
        return
    item: Any
    for key, item in items:
        if key.__class__ is not str and not isinstance(key, str | int):
            raise InputError(f"model: {path!r} has a key {key!r}, expected a name")
        name = f"{path}.{key}" if path else str(key)
        if _is_nested(item.__class__):
            _tree(found, item, name, depth + 1)
        else:
            found.append((name, item))


@lru_cache(maxsize=256)
def _is_nested(kind: Any) -> bool:
    return issubclass(kind, Mapping | list | tuple) and kind is not RawTensor


def _attributes(
    owner: object, path: str, package: str, above: tuple[int, ...]
) -> Iterator[tuple[str, object]]:
    """Arrays among an estimator's attributes, and in what it is made of, by dotted name.

    Attributes that end in ``_`` (fitted, by scikit-learn's convention) may be plain floats.
    """
    if id(owner) in above or len(above) > MAX_DEPTH:
        return
    np = load_numpy()
    for key, value in sorted(getattr(owner, "__dict__", {}).items()):
        name = _joined(path, key)
        if key in _NOT_THE_MODEL:
            continue
        if isinstance(value, np.number):
            yield name, value
        elif isinstance(value, float) and key.endswith("_"):
            yield name, raw_float(name, value)
        else:
            yield from _fitted(value, name, package, (*above, id(owner)))


def _fitted(
    value: object, name: str, package: str, above: tuple[int, ...]
) -> Iterator[tuple[str, object]]:
    if isinstance(value, load_numpy().ndarray):
        yield from _fitted_array(value, name, package, above)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _fitted(item, _joined(name, str(key)), package, above)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _fitted(item, _joined(name, str(index)), package, above)
    elif from_package(value, "sklearn.tree._tree"):
        for key in _TREE_ARRAYS:
            if (array := getattr(value, key, None)) is not None:
                yield _joined(name, key), array
    elif from_package(value, "scipy.sparse"):
        raise InputError(f"tensor {name!r}: found {type_name(value)}, expected a dense array")
    elif from_package(value, package) or callable(getattr(value, "get_params", None)):
        yield from _attributes(value, name, package, above)


def _fitted_array(
    array: Array, name: str, package: str, above: tuple[int, ...]
) -> Iterator[tuple[str, object]]:
    """An estimator's array: numbers, a structure by field, texts (classes), or estimators."""
    if array.dtype.names is not None:
        for field in array.dtype.names:
            yield from _fitted_array(array[field], _joined(name, field), package, above)
    elif array.dtype.kind in "UO" and all(isinstance(item, str) for item in array.flat):
        yield name, raw_text(name, [str(item) for item in array.flat], array.shape)
    elif array.dtype.kind == "O":
        for index, item in enumerate(array.flat):
            yield from _fitted(item, _joined(name, str(index)), package, above)
    else:
        yield name, array


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
