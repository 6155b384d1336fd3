"""Reports of a run whose every fact is known: the golden bundle's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provenance.cli import main
from tests.support.paths import ROOT

BUNDLE = ROOT / "tests/vectors/bundle-v1.zip"
SEED = bytes(range(32))
Run = Callable[..., int]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "auditor.key"
    path.touch(mode=0o600)
    path.write_text(SEED.hex())
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The command, with a deployment that has nothing."""

    def compliance(*words: object) -> int:
        base = ["--base-dir", str(tmp_path / "artifacts")]
        return main(["compliance", *base, *map(str, words)])

    return compliance


@pytest.fixture
def folder(tmp_path: Path, run: Run, key: Path) -> Path:
    """A signed report."""
    path = tmp_path / "report"
    assert run(BUNDLE, "--framework", "eu-ai-act", "-o", path, "--key", key) == 0
    return path
