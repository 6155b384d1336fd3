"""Reports of a run whose every fact is known: the golden bundle's."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from provenance.app.verify import verify_path
from provenance.cli import main
from provenance.settings import load
from provenance.verify.report import VerificationReport
from tests.support.paths import ROOT

BUNDLE = ROOT / "tests/vectors/bundle-v1.zip"
SEED = bytes(range(32))
Run = Callable[..., int]


def key_file(folder: Path) -> Path:
    path = folder / "auditor.key"
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


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed report, which no test changes."""
    base = tmp_path_factory.mktemp("compliance")
    words = ["--framework", "eu-ai-act", "-o", str(base / "report"), "--placed-on", "2027-01-31"]
    words += ["--key", str(key_file(base)), "--base-dir", str(base / "artifacts")]
    assert main(["compliance", str(BUNDLE), *words]) == 3
    return base / "report"


@pytest.fixture
def folder(tmp_path: Path, written: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(written, tmp_path / "report")


@pytest.fixture(scope="session")
def verified(tmp_path_factory: pytest.TempPathFactory) -> VerificationReport:
    """What verifying the golden bundle found."""
    return verify_path(load(None, tmp_path_factory.mktemp("nothing")), BUNDLE)
