"""Gradient boosters as tensors: XGBoost, LightGBM and CatBoost by their own serialisations.

WARNING: FROZEN FORMAT, as in tensors.py. No clock, no randomness; only `booster_file` reads a file.
No booster is imported here, unless a file of its is to be read.

========  ==========  =====================================================================
library   dtype       the tensor ``model``
========  ==========  =====================================================================
XGBoost   BYTES       ``Booster.save_raw("ubj")``, without the attribute ``scikit_learn``
LightGBM  UTF8        ``Booster.model_to_string(num_iteration=-1)``, without the parameters
                      of the training at its end
CatBoost  BYTES       the ``cbm`` file, its metadata without `_CATBOOST_APART`, and of the
                      options in it `_CATBOOST_OPTIONS` alone, sorted, floats as texts of
                      six digits: reading a file cuts them to ten
========  ==========  =====================================================================

What is left out says how the training ran: threads, verbosity, seeds, paths, the time of day.
The bytes are those of the release that writes them: another release of a library may write one
model otherwise.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import sys
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

from provenance.errors import InputError, MissingExtraError
from provenance.fingerprint.arrays import (
    RawTensor,
    raw_bytes,
    raw_text,
    type_name,
    var_chunks,
)

SUFFIXES: Final = {".ubj": "xgboost", ".json": "xgboost", ".txt": "lightgbm", ".cbm": "catboost"}
"""The library that reads a model file, by how its name ends."""
OF: Final = {"xgboost": "save_raw", "lightgbm": "model_to_string", "catboost": "cbm"}
"""What stands for a model, by library."""

_CLASSES: Final = {
    "xgboost": ("xgboost.core", "Booster"),
    "lightgbm": ("lightgbm.basic", "Booster"),
    "catboost": ("catboost.core", "CatBoost"),
}
_ERRORS: Final = {
    "xgboost": "XGBoostError", "lightgbm": "LightGBMError", "catboost": "CatBoostError",
}  # fmt: skip
# Keys of CatBoost's metadata that say how the training ran; and which of its options count, since
# predictions (virtual ensembles) read them.
_CATBOOST_APART: Final = frozenset({
    "model_guid", "train_finish_time", "catboost_version_info", "output_options", "training",
})  # fmt: skip
_CATBOOST_OPTIONS: Final = ("boosting_options", "loss_function")
_PARAMETERS: Final = re.compile(r"\nparameters:\n.*?\nend of parameters\n", re.DOTALL)


@lru_cache(maxsize=256)
def library_of(kind: Any) -> str | None:
    """``xgboost``, ``lightgbm`` or ``catboost`` for a class that is a booster of it (of CatBoost
    also in the manner of scikit-learn), else None."""
    for library, (module, name) in _CLASSES.items():
        if module in sys.modules and issubclass(kind, getattr(sys.modules[module], name)):
            return library
    return None


def booster_values(model: Any) -> tuple[list[tuple[str, object]], dict[str, Any]]:
    """The tensors of a bare booster, and what they cover.

    ``model`` as above; ``best_iteration`` where LightGBM predicts with the trees up to there
    alone; ``class`` for a model of CatBoost's classes for scikit-learn, which do not predict as
    `catboost.CatBoost` does.

    Raises:
        InputError: no booster, or one that is not trained.
    """
    library = library_of(model.__class__)
    if library is None:
        raise InputError(f"model: found {type_name(model)}, expected a booster")
    values: list[tuple[str, object]] = [("model", booster_tensor("model", model, library))]
    of = [OF[library]]
    if library == "lightgbm" and (iteration := best_iteration(model)):
        best = iteration.to_bytes(8, "little")
        values.append(("best_iteration", raw_bytes("best_iteration", "I64", (), [best])))
        of.append("best_iteration")
    if library == "catboost" and type_name(model) != "catboost.core.CatBoost":
        values.append(("class", raw_text("class", [type_name(model)], ())))
        of.append("class")
    return values, {"adapter": library, "of": of}


def best_iteration(model: Any) -> int:
    """The iteration up to which a booster of LightGBM predicts; 0: it does with all trees."""
    best = model.best_iteration
    return best if 0 < best < model.current_iteration() else 0


def booster_tensor(name: str, model: Any, library: str) -> RawTensor:
    """The serialisation of a booster as a tensor ``name``.

    Raises:
        InputError: it is not trained, or its library cannot write it.
    """
    if library == "catboost" and not model.is_fitted():
        raise InputError(f"model: {type_name(model)} {name!r} is not trained")
    try:
        if library == "xgboost":
            if model.attr("scikit_learn") is not None:  # set by `XGBModel.save_model`
                model = model.copy()
                model.set_attr(scikit_learn=None)
            return raw_bytes(name, "BYTES", (), var_chunks([bytes(model.save_raw("ubj"))]))
        if library == "lightgbm":
            text = model.model_to_string(num_iteration=-1)
            return raw_text(name, [_PARAMETERS.sub("\n", text, count=1)], ())
        return raw_bytes(name, "BYTES", (), var_chunks([_catboost_bytes(model)]))
    except _errors(library) as error:
        raise InputError(f"model: {type_name(model)} {name!r}: {_first_line(error)}") from error


def _errors(library: str) -> Any:
    """What a library raises for what it cannot write or read."""
    return getattr(sys.modules[_CLASSES[library][0]], _ERRORS[library])


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _catboost_bytes(model: Any) -> bytes:
    bare = model.copy()
    metadata = bare.get_metadata()
    for key in [key for key, _ in metadata.items() if key in _CATBOOST_APART]:
        del metadata[key]
    if "params" in metadata:
        options = json.loads(metadata["params"], parse_float=lambda text: f"{float(text):.6g}")
        kept = {key: options.get(key) for key in _CATBOOST_OPTIONS}
        metadata["params"] = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return bytes(bare._serialize_model())


def copy_of_model(model: Any) -> Any:
    """A deep copy of an estimator or booster, which has its digest.

    ``copy.deepcopy`` of LightGBM's boosters forgets the best iteration: such a copy predicts with
    the trees after it too. What is pickled keeps it.

    Raises:
        Whatever the model's own copy raises.
    """
    if "lightgbm.basic" in sys.modules and hasattr(type(model), "predict"):
        return pickle.loads(pickle.dumps(model))  # noqa: S301  # the caller's own object
    return copy.deepcopy(model)


def booster_file(path: str | os.PathLike[str]) -> list[RawTensor]:
    """The tensors of a model file: those of the booster that its library reads from it.

    Raises:
        InputError: it cannot be read, or not by the library that its name stands for.
        MissingExtraError: that library is not installed.
    """
    where = os.fspath(path)
    library = SUFFIXES[os.path.splitext(where)[1]]
    model = _read(where, library)
    return [value for _, value in booster_values(model)[0] if isinstance(value, RawTensor)]


def _read(where: str, library: str) -> Any:
    if not os.path.isfile(where):
        raise InputError(f"model file {where!r}: found no file")
    try:
        module = import_module(library)
    except ImportError as error:
        raise MissingExtraError(library, library) from error
    try:
        if library == "catboost":
            model = module.CatBoost()
            model.load_model(where)
            return model
        return module.Booster(model_file=where)
    except (_errors(library), OSError, ValueError) as error:
        found = _first_line(error)
        raise InputError(f"model file {where!r}: {library} cannot read it: {found}") from error
