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
        own = {path.stem for path in STRANGER.iterdir()}
        for module in [each for each in sys.modules if each.partition(".")[0] in own]:
            del sys.modules[module]
