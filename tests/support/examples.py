"""Examples, run in this process: their frameworks are imported once for all tests of a file."""

from __future__ import annotations

import runpy
from pathlib import Path

from tests.support.paths import ROOT

MAX_LINES = 40


def run_example(name: str, *arguments: Path | str) -> None:
    """Call ``main`` of an example, and hold it to its length."""
    path = ROOT / "examples" / f"{name}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) < MAX_LINES
    runpy.run_path(str(path))["main"](*map(str, arguments))
