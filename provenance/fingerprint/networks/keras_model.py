"""The variables of a Keras 3 model by path, on any backend.

WARNING: FROZEN FORMAT (docs/FORMAT.md, section 3.3). Keras is never imported here.

``model.weights`` counts, trainable or not, as Keras saves it, and what Keras's preprocessing layers
were told or have adapted to (bin boundaries, a vocabulary), which is in no variable. The
optimizer's variables, the metrics' and the states of seed generators are left out. A variable's
alias is its path in ``.keras`` and ``.weights.h5`` files, which, unlike the names of layers, is the
same for each instance of a model.
"""

from __future__ import annotations

import json
import sys
import weakref
from typing import Any, Final

from provenance.errors import InputError
from provenance.fingerprint.arrays import RawTensor, raw_text, type_name
from provenance.fingerprint.named import Named
from provenance.formats.record import Json

ARGUMENTS: Final = "arguments of preprocessing layers"
"""Part of a model that no file of its variables has."""
_SAVED: weakref.WeakKeyDictionary[Any, tuple[list[int], dict[int, str]]] = (
    weakref.WeakKeyDictionary()
)
"""By model, the variables for which its saved paths were asked, and these."""


def keras_values(model: Any) -> Named:
    """A model's or a layer's variables. Raises InputError: it has none yet: it is not built."""
    variables = list(model.weights)
    if not variables:
        raise InputError(f"model: {type_name(model)} has no tensors: build it, or call it once")
    paths: dict[str, int] = {}
    values: list[tuple[str, Any]] = []
    names: dict[int, str] = {}
    for variable in variables:
        name = variable.path
        count = paths[name] = paths.get(name, 0) + 1
        if count > 1:  # layers of one name: by their order, as Keras lists them
            name = f"{name}#{count}"
        values.append((name, _array(variable)))
        names[id(variable)] = name
    known, saved = _SAVED.get(model, ([], {}))
    if known != list(names):
        saved = _saved_paths(model)
        _SAVED[model] = list(names), saved
    aliases = {names[own]: (alias,) for own, alias in saved.items() if own in names}
    seeds = [v.path for v in model.variables if id(v) not in names]
    covers: dict[str, Json] = {
        "adapter": "keras",
        "of": ["trainable variables", "non-trainable variables"],
        "not": {"optimizer": [], "metrics": [], "seeds": list(seeds)},
    }
    if told := _arguments(model):
        values += told
        covers["parts"] = {ARGUMENTS: [name for name, _ in told]}
    return Named(values, covers, aliases)


def _arguments(model: Any) -> list[tuple[str, RawTensor]]:
    """Of each preprocessing layer of Keras's own the canonical JSON of its configuration, without
    its name, and of its vocabulary. Raises InputError: one that has no such form."""
    found = []
    for layer in model._flatten_layers():
        if not type(layer).__module__.startswith("keras.src.layers.preprocessing"):
            continue
        name = f"{layer.path}/arguments"
        told = {key: value for key, value in layer.get_config().items() if key != "name"}
        told["bin_boundaries"] = getattr(layer, "bin_boundaries", None)  # adapted ones, too
        if callable(vocabulary := getattr(layer, "get_vocabulary", None)):
            told["vocabulary"] = vocabulary()
        try:
            text = json.dumps(told, sort_keys=True, separators=(",", ":"), default=_plain)
        except (TypeError, ValueError) as error:
            raise InputError(f"model: {type_name(layer)} {name!r}: {error}") from error
        found.append((name, raw_text(name, [text], ())))
    return found


def _plain(value: Any) -> Any:
    """An array of any backend as a list, for JSON."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if not hasattr(value, "tolist"):
        raise TypeError(f"found {type_name(value)} in its configuration, expected plain values")
    return value.tolist()


def _array(variable: Any) -> Any:
    """The backend's tensor; of a variable of TensorFlow, its value."""
    value = variable.value
    return value.numpy() if type(value).__module__.startswith("tensorflow") else value


def _saved_paths(model: Any) -> dict[int, str]:
    """By a variable's id, its path in a file that Keras saves; empty where Keras cannot say."""
    saving = sys.modules.get("keras.src.saving.saving_lib")
    store, save = getattr(saving, "H5IOStore", None), getattr(saving, "_save_state", None)
    if store is None or save is None:
        return {}
    found: dict[int, str] = {}

    class Paths(store):  # type: ignore[misc, valid-type]  # of Keras
        """Takes each variable that Keras would write, and writes none."""

        def __init__(self) -> None:
            self.path = ""

        def __bool__(self) -> bool:
            return True

        def make(self, path: str, metadata: object = None) -> Paths:
            self.path = path
            return self

        def __setitem__(self, key: str, variable: Any) -> None:
            found.setdefault(id(variable), f"{self.path}/vars/{key}".lstrip("/"))

    try:
        save(model, Paths(), None, "", set())
    except (TypeError, ValueError, AttributeError, NotImplementedError):
        return {}
    return found
