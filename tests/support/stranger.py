"""The stranger's verifier as a module: its files lie in a folder of their own."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from tests.support.paths import STRANGER


def load(name: str = "verify") -> ModuleType:
    """``tests/stranger/verify.py``, or another; the names of its modules stay free for others."""
    sys.path.insert(0, str(STRANGER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(STRANGER))
        for path in STRANGER.glob("*.py"):
            sys.modules.pop(path.stem, None)
