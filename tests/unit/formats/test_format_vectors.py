"""docs/FORMAT.md, its worked examples and the code say the same."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.exceptions import InvalidSignature

from tests.support.paths import STRANGER
from tests.vectors.make_format import BLOCK, DOCUMENT, HERE, examples, file_of, filled

TEXTS = examples()
HEX = sorted(name for name, (language, _) in TEXTS.items() if language == "hex")


@pytest.fixture(scope="module")
def stranger() -> ModuleType:
    """The verifier that was written from the document, checking the examples."""
    sys.path.insert(0, str(STRANGER))
    try:
        spec = importlib.util.spec_from_file_location("stranger_vectors", STRANGER / "vectors.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(STRANGER))
    return module


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_the_code_makes_the_committed_example(name: str) -> None:
    language, text = TEXTS[name]
    assert file_of(language, name).read_text("utf-8") == text


def test_no_example_is_left_over() -> None:
    assert {path.name for path in HERE.iterdir()} == {
        file_of(language, name).name for name, (language, _) in TEXTS.items()
    }


def test_the_document_shows_each_example_once_as_it_is() -> None:
    document = DOCUMENT.read_text("utf-8")
    shown = {name: (language, text) for language, name, text in BLOCK.findall(document)}
    assert len(BLOCK.findall(document)) == len(shown)
    assert shown == TEXTS
    assert filled(document, TEXTS) == document


def test_every_block_with_hex_in_the_document_is_checked() -> None:
    """Whatever looks like an example has a name, so that it cannot rot."""
    fences = re.findall(r"^```(\S.*)$", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    assert [fence for fence in fences if not re.fullmatch(r"\w+ name=[a-z0-9-]+", fence)] == []


def test_a_block_that_is_no_example_is_refused() -> None:
    with pytest.raises(ValueError, match="hex name=nothing is no example"):
        filled("```hex name=nothing\n00\n```", TEXTS)


def test_links_inside_the_document_lead_somewhere() -> None:
    document = DOCUMENT.read_text("utf-8")
    titles = re.findall(r"^## (.+)$", document, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", document)) <= anchors


@pytest.mark.slow
def test_a_stranger_works_out_every_example(stranger: ModuleType) -> None:
    assert stranger.check(HERE) == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", HEX)
def test_a_stranger_notices_a_changed_example(
    stranger: ModuleType, name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "format"
    shutil.copytree(HERE, folder)
    path = folder / f"{name}.hex"
    text = path.read_text()
    path.write_text(text[:-2] + ("1" if text[-2] == "0" else "0") + "\n")
    with pytest.raises((ValueError, KeyError, InvalidSignature)):
        stranger.check(folder)
