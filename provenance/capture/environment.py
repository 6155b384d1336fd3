"""Facts about the code and the machine that go into records."""

from __future__ import annotations

import platform
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from provenance.formats.record import Json

_PACKAGES = (
    "ml-provenance", "numpy", "torch", "scikit-learn", "jax", "tensorflow", "keras",
    "transformers", "lightning", "pandas", "pyarrow", "safetensors",
)  # fmt: skip
_WHERE_USED = (
    "xgboost", "lightgbm", "catboost", "flax", "optax", "peft", "accelerate", "opacus", "optuna",
    "datasets", "polars", "ray",
)  # fmt: skip
"""Modules whose version counts where the training has imported them."""


def environment() -> dict[str, Json]:
    """Interpreter, platform and the versions of installed packages that shape results."""
    versions: dict[str, Json] = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError, KeyError, OSError, ValueError):  # or damaged
            versions[name] = metadata.version(name)
    for name in _WHERE_USED:
        with suppress(Exception):  # what a lazy module's own code raises is anything
            version = sys.modules[name].__version__
            if isinstance(version, str):
                versions[name] = version
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "packages": versions,
    }


def code_commit(directory: Path | None = None) -> dict[str, Json]:
    """The git commit of the working directory, and whether tracked files differ from it.

    ``commit`` is None outside a git checkout or without git, ``dirty`` where git does not say, as
    of another user's checkout: there it may run what that user configured.
    """
    commit = _git(["-c", "safe.directory=*", "rev-parse", "HEAD"], directory)
    if commit is None:
        return {"commit": None, "dirty": None}
    changes = _git(["status", "--porcelain", "--untracked-files=no"], directory)
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(arguments: list[str], directory: Path | None) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "--no-optional-locks", *arguments], cwd=directory, capture_output=True,
            timeout=5, check=True, stdin=subprocess.DEVNULL,
        ).stdout  # fmt: skip
        return answer.decode("utf-8", "replace").strip()  # a file's name is any bytes
    except (OSError, subprocess.SubprocessError):
        return None
