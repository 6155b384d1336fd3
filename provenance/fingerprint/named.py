"""The arrays of a model in memory, by dotted name.

WARNING: FROZEN FORMAT, as in tensors.py: names are part of the digests. No I/O, no clock, no
randomness.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from provenance.errors import InputError
from provenance.fingerprint.arrays import RawTensor, is_array, type_name
from provenance.fingerprint.boosters import booster_values, library_of
from provenance.fingerprint.estimators import estimator_values

MAX_DEPTH: Final = 32
"""Levels of nested dicts, lists and estimators that are searched for tensors."""


def named_values(model: Any) -> list[tuple[str, object]]:
    """The tensors of a model in memory, or what stands in their place, each with its name."""
    found: list[tuple[str, object]] = []
    if is_array(model):
        found.append(("", model))
    elif callable(getattr(model, "state_dict", None)):
        _tree(found, model.state_dict(), "", 0)
    elif isinstance(model, Mapping | list | tuple):
        _tree(found, model, "", 0)
    elif library_of(model.__class__):
        found += booster_values(model)[0]
    elif callable(getattr(model, "fit", None)) and callable(getattr(model, "get_params", None)):
        found += estimator_values(model)[0]
    else:
        raise InputError(
            f"model: found {type_name(model)}, expected a mapping of names to arrays, a module with"
            " state_dict(), a fitted estimator, a booster, or the path of a file of weights"
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
