"""Section 13 of docs/FORMAT.md by a second implementation, on npm's @noble/curves."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from provenance.bundle.reader import read_bundle
from tests.conftest import missing
from tests.support.paths import ROOT
from tests.vectors.make_golden import HIDDEN

SOURCE = ROOT / "tests" / "vectors" / "noble"
VECTORS = ROOT / "tests" / "vectors" / "format"


@pytest.fixture(scope="module")
def noble() -> Path:
    """The folder with the pinned packages; installed once, as the compiler of contracts is."""
    home = ROOT / ".devnet" / "opt" / "noble"
    if not (home / "node_modules").exists():
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            missing("node and npm are not installed; install Node.js")
        assert npm is not None
        home.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCE / name, home / name)
        flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(
            [npm, "ci", *flags], cwd=home, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            shutil.rmtree(home / "node_modules", ignore_errors=True)
            missing(f"npm ci in {home} failed: {done.stderr.strip()[-300:]}")
    return home


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The vectors of the page, and the proofs of the golden bundle."""
    for name in ("generators", "commitment", "keys"):
        shutil.copy(VECTORS / f"{name}.json", tmp_path)
    for name in ("at-least", "equals"):
        text = (VECTORS / f"proof-{name}.json").read_text().removesuffix("\n")
        (tmp_path / f"page-{name}.proof.json").write_text(text)
    for name, data in read_bundle(HIDDEN).attachments.items():
        if name.startswith("proofs/"):
            (tmp_path / f"golden-{Path(name).stem}.proof.json").write_bytes(data)
    return tmp_path


def checked(noble: Path, folder: Path) -> dict[str, str | None]:
    done = subprocess.run(
        ["node", SOURCE / "check.mjs", noble, folder],
        capture_output=True, text=True, timeout=120, check=True, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    found: dict[str, str | None] = json.loads(done.stdout)
    return found


def test_it_finds_what_is_written_here(noble: Path, folder: Path) -> None:
    found = checked(noble, folder)
    assert len(found) == 7
    assert set(found.values()) == {None}


def test_it_refuses_what_is_changed(noble: Path, folder: Path) -> None:
    draw = random.Random(13)
    for path in list(folder.glob("*.proof.json")):
        text = path.read_text()
        stem = path.name.removesuffix(".proof.json")
        begin, end = text.index('"proof":"') + 9, text.index('","statement"')
        for at in draw.sample(range(begin, end), 8):
            digit = draw.choice([c for c in "0123456789abcdef" if c != text[at]])
            forged = f"{text[:at]}{digit}{text[at + 1 :]}"
            (folder / f"{stem}-{at}.proof.json").write_text(forged)
        for name, old, new in (
            ("run", '"run":"0192', '"run":"0193'),
            ("metric", '"metric":"', '"metric":"x'),
            ("scale", '"scale":6', '"scale":5'),
            ("short", '","statement"', '00","statement"'),
            ("space", '{"proof"', '{ "proof"'),
            ("version", '"v":1', '"v":2'),
            ("bound", '_least":"', '_least":"1'),
        ):
            if old in text:
                (folder / f"{stem}-{name}.proof.json").write_text(text.replace(old, new, 1))
        path.unlink()
    found = checked(noble, folder)
    held = [name for name, problem in found.items() if problem is None]
    assert (sorted(held), len(found) > 70) == (["commitment.json", "generators.json"], True)
