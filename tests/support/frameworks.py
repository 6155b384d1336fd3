"""Frameworks that tests train with: one that is not installed skips, and fails in CI."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

from tests.conftest import missing


def installed(module: str, extra: str | None = None) -> None:
    """Without importing it; ``extra`` is that of this project which brings it."""
    parents = accumulate(module.split("."), "{}.{}".format)
    if not all(name in sys.modules or find_spec(name) for name in parents):
        missing(f"{module}: pip install 'ml-provenance[{extra or module}]'")


def framework(module: str, extra: str | None = None) -> Any:
    """The module, imported."""
    installed(module, extra)
    return import_module(module)


@contextmanager
def autologged(base: Path) -> Iterator[None]:
    """``provenance.autolog`` for as long as this is open."""
    import provenance

    provenance.autolog(base_dir=base, group="auto")
    try:
        yield
    finally:
        provenance.autolog(disable=True)
