"""Facts about the code and the machine that go into records."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import ModuleType

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
_REFUSALS = {
    "not a git repository": "no git repository",
    "dubious ownership": "the git repository belongs to another user",
    "unknown revision": "no commit in the git repository yet",
}
"""Parts of what git says (in the locale C), and why there is no commit then."""


def environment() -> dict[str, Json]:
    """Interpreter, platform and the versions of installed packages that shape results."""
    versions: dict[str, Json] = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError, KeyError, OSError, ValueError):  # or damaged
            versions[name] = metadata.version(name)
    for name in _WHERE_USED:
        module = sys.modules.get(name)
        # Not asked as an attribute: a lazy module's own code may raise anything.
        version = vars(module).get("__version__") if isinstance(module, ModuleType) else None
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

    ``commit`` is None where git tells none, and ``problem`` says why; ``dirty`` is None where it
    does not say, as of another user's checkout: there it may run what that user configured.
    """
    commit, problem = _git(["-c", "safe.directory=*", "rev-parse", "HEAD"], directory)
    if commit is None:
        return {"commit": None, "dirty": None, "problem": problem}
    changes, _ = _git(["status", "--porcelain", "--untracked-files=no"], directory)
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(arguments: list[str], directory: Path | None) -> tuple[str | None, str | None]:
    """What git answers, or why it does not, in words of ours: git's own name paths."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments], cwd=directory, capture_output=True,
            timeout=5, stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except FileNotFoundError:
        return None, "git is not installed" if shutil.which("git") is None else "no such folder"
    except OSError:
        return None, "git cannot be started"
    except subprocess.TimeoutExpired:
        return None, "git did not answer within 5 s"
    if done.returncode == 0:
        return done.stdout.decode("utf-8", "replace").strip(), None  # a file's name is any bytes
    said = done.stderr.decode("utf-8", "replace")
    words = (reason for part, reason in _REFUSALS.items() if part in said)
    return None, next(words, f"git ended with status {done.returncode}")
