"""Facts about the model, the code and the machine that go into records."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from provenance.errors import InputError
from provenance.formats.record import Json, normalise

_PACKAGES = (
    "ml-provenance", "numpy", "torch", "scikit-learn", "jax", "tensorflow", "keras",
    "transformers", "lightning", "pandas", "pyarrow", "safetensors",
)  # fmt: skip
_MAX_TEXT = 16_384


def environment() -> dict[str, Json]:
    """Interpreter, platform and the versions of installed packages that shape results."""
    versions: dict[str, Json] = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "packages": versions,
    }


def code_commit(directory: Path | None = None) -> dict[str, Json]:
    """The git commit of the working directory, and whether tracked files differ from it.

    ``commit`` is None outside a git checkout or without git.
    """
    commit = _git(["rev-parse", "HEAD"], directory)
    if commit is None:
        return {"commit": None, "dirty": None}
    changes = _git(["status", "--porcelain", "--untracked-files=no"], directory)
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(arguments: list[str], directory: Path | None) -> str | None:
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=directory, capture_output=True, timeout=5,
            check=True, stdin=subprocess.DEVNULL,
        ).stdout  # fmt: skip
        return answer.decode("utf-8", "replace").strip()  # a file's name is any bytes
    except (OSError, subprocess.SubprocessError):
        return None


def architecture(model: object) -> dict[str, Json]:
    """Framework, class and structure of a model, without its weights."""
    kind = type(model)
    package = kind.__module__.split(".")[0]
    fields: dict[str, Json] = {
        "framework": package if package in sys.modules else "python",
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "structure": _structure(model),
    }
    parameters = _hyperparameters(model)
    if parameters is not None:
        fields["parameters"] = parameters
    return fields


def _structure(model: object) -> str:
    """What the framework prints of the model; a plain mapping is its names alone."""
    if isinstance(model, dict):
        return ", ".join(sorted(str(name) for name in model))[:_MAX_TEXT]
    if type(model).__repr__ is object.__repr__:
        return type(model).__qualname__
    return repr(model)[:_MAX_TEXT]


def _hyperparameters(model: Any) -> Json:
    """scikit-learn's ``get_params`` where a model has it."""
    get = getattr(model, "get_params", None)
    if not callable(get):
        return None
    try:
        parameters: dict[str, object] = get(deep=False)
    except TypeError:
        return None
    result: dict[str, Json] = {}
    for name, value in sorted(parameters.items()):
        try:
            result[name] = normalise(value)
        except InputError:
            result[name] = type(value).__qualname__
    return result
