"""Gradient boosters as tensors: XGBoost, LightGBM and CatBoost by their own serialisations.

WARNING: FROZEN FORMAT, as in tensors.py. No clock, no randomness; only `booster_file` reads a file,
in a process of its own, which runs this module. No booster is imported in any other.

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
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from signal import Signals
from typing import Any, Final

from provenance.errors import InputError, MissingExtraError
from provenance.fingerprint.arrays import RawTensor, raw_bytes, raw_text, type_name, var_chunks

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
FILE_MEMORY: Final = (4 << 30, 64)
"""Bytes of address space for reading a file, and more for each byte of it."""
FILE_CPU_S: Final = (60, 1 << 20)
"""Seconds of computing for reading a file, and of how many bytes one more is for."""
_ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MALLOC_ARENA_MAX"), "1"
)
"""Each thread takes address space."""
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

    ``model`` as above; ``best_iteration`` where LightGBM predicts with the trees up to there alone;
    ``class`` for a model of CatBoost's classes for scikit-learn, which do not predict as
    `catboost.CatBoost` does. Raises InputError: no booster, or one that is not trained."""
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
    """The serialisation of a booster as a tensor ``name``. Raises InputError: it is not trained, or
    its library cannot write it."""
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

    A file of a stranger may end the process that reads it, or take all its memory or time: that
    is a process of its own, with at most `FILE_MEMORY` and `FILE_CPU_S`.

    Raises:
        InputError: it cannot be read, or not by the library that its name stands for.
        MissingExtraError: that library is not installed.
    """
    import subprocess

    where = os.fspath(path)
    library = SUFFIXES[os.path.splitext(where)[1]]
    if not os.path.isfile(where):
        raise InputError(f"model file {where!r}: found no file")
    if find_spec(library) is None:
        raise MissingExtraError(library, library)
    folders = map(os.path.abspath, sys.path)
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__, library, where],
        env={**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(folders)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        ended = Signals(-done.returncode).name if done.returncode < 0 else done.returncode
        found = lines[-1] if done.returncode == 1 and lines else f"its reader ended with {ended}"
        raise InputError(f"model file {where!r}: {library} cannot read it: {found[:200]}")
    dtype = "UTF8" if library == "lightgbm" else "BYTES"
    return [raw_bytes("model", dtype, (), [done.stdout])]


def _main(library: str, where: str) -> None:
    """Write the elements of a file's tensor to stdout; exit with one line on stderr where there
    are none."""
    import resource

    size = os.path.getsize(where)
    for limit, most in (
        (resource.RLIMIT_AS, FILE_MEMORY[0] + FILE_MEMORY[1] * size),
        (resource.RLIMIT_CPU, FILE_CPU_S[0] + size // FILE_CPU_S[1]),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        with suppress(ValueError, OSError):  # a system that does not know it
            resource.setrlimit(limit, (most if hard < 0 else min(most, hard), hard))
    out = os.dup(1)
    os.dup2(2, 1)  # libraries print
    module = import_module(library)
    try:
        if library == "catboost":
            model = module.CatBoost()
            model.load_model(where)
        else:
            model = module.Booster(model_file=where)
        tensor = booster_tensor("model", model, library)
    except (_errors(library), InputError, OSError, ValueError, MemoryError) as error:
        sys.exit(_first_line(error) or type(error).__name__)
    with open(out, "wb") as file:
        file.write(tensor.memory)


if __name__ == "__main__":
    _main(*sys.argv[1:])
