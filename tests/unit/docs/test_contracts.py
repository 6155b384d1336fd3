"""Each import contract fails once: on a copy of the sources with one bad import planted."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PLANTS = {
    "Imports run downhill only": ("provenance/formats/merkle.py", "import provenance.evidence"),
    "Formats and proofs are pure: no I/O, no arrays, no third-party service": (
        "provenance/proofs/rlp.py",
        "import pathlib",
    ),
    "The dev servers, a distribution apart, are imported by cli and demo alone": (
        "workers/dispatch.py",
        "import provenance_devnet",
    ),
    "A trainer needs no worker's packages": ("provenance/capture/spool.py", "import sqlalchemy"),
    "The dashboard reads: it opens nothing that sends or makes a key": (
        "provenance/dashboard/tokens.py",
        "import provenance.bootstrap.sending",
    ),
    "The checker shares nothing with the writers but formats, proofs, errors and settings": (
        "provenance/fsck/outbox.py",
        "import provenance.verify.checks.receipts",
    ),
}


def contracts() -> list[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return [contract["name"] for contract in settings["contracts"]]


def test_every_contract_has_a_plant() -> None:
    assert sorted(PLANTS) == sorted(contracts())


def test_no_contract_lists_files() -> None:
    """A file that is not listed would be forgotten: contracts name folders and packages."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    for contract in settings["contracts"]:
        for name in contract.get("source_modules", []):
            assert (ROOT / name.replace(".", "/")).is_dir(), name


@pytest.mark.slow
def test_each_contract_fails_on_its_plant(tmp_path: Path) -> None:
    for folder in (ROOT / "provenance", ROOT / "workers", ROOT / "deploy/devnet/provenance_devnet"):
        shutil.copytree(
            folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file, line in PLANTS.values():
        with (tmp_path / file).open("a", encoding="utf-8") as source:
            source.write(f"\n{line}\n")
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(tmp_path), "COLUMNS": "300", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    broken = re.findall(r"^(.+) BROKEN$", done.stdout, re.MULTILINE)
    assert sorted(broken) == sorted(PLANTS), done.stdout
    for file, line in PLANTS.values():
        module = file.removesuffix(".py").replace("/", ".")
        assert f"{module} -> {line.split()[1]}" in done.stdout
