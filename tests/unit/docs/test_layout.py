"""Files and folders keep to the size that one can walk."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from tests.support.paths import ROOT

MAX_LINES, MAX_FILES = 400, 15
SOURCES = [
    path
    for top in ("provenance", "workers", "tests", "deploy", "examples")
    for path in (ROOT / top).rglob("*.py")
]


def overlong(path: Path) -> bool:
    source = path.read_text(encoding="utf-8")
    if len(source.splitlines()) <= MAX_LINES:
        return False
    return "Over 400 lines:" not in (ast.get_docstring(ast.parse(source)) or "")


def test_a_file_over_400_lines_says_why() -> None:
    assert [str(path.relative_to(ROOT)) for path in SOURCES if overlong(path)] == []


def test_no_folder_has_more_than_15_files() -> None:
    counts = Counter(path.parent for path in SOURCES)
    assert {
        str(folder.relative_to(ROOT)): count
        for folder, count in counts.items()
        if count > MAX_FILES
    } == {}
