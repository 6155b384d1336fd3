"""Examples, run in this process: their frameworks are imported once for all tests of a file."""

from __future__ import annotations

import runpy
from pathlib import Path

from tests.support.paths import ROOT


def run_example(name: str, *arguments: Path | str) -> None:
    """Call ``main`` of an example."""
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["main"](*map(str, arguments))
