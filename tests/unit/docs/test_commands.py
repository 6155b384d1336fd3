"""Every command on every page is one that there is.

Blocks of ``sh`` and ``bash`` hold commands, those of ``python`` programs; the walk in
``tests/integration/fleet/test_readme.py`` and the test of docs/backup.md run those of their
pages. Here each command is held against the real parser, each import and keyword against the
real function, and each other program has its reason.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import provenance
from provenance import cli, settings
from provenance.running import Run
from tests.support import readme
from tests.support.paths import ROOT

PAGES = [page for page in readme.markdown(ROOT) if page.name != "CHANGELOG.md"]  # of the past
LANGUAGES = {"bash", "sh", "python", "py", "json", "yaml", "text", "cron"}
SHELL = {"[", "cat", "cd", "chmod", "cp", "date", "grep", "ls", "mv", "sh", "tail", "true", "cut"}
STOCK = {
    "base64": "is everybody's",
    "cosign": "needs Sigstore, and an account of the reader's",
    "curl": "asks a server on a name of the reader's",
    "docker": "needs a container engine",
    "install": "needs root, where it is not run by the test of its page",
    "jq": "reads a bundle that the reader has",
    "kubectl": "needs a cluster",
    "mpirun": "starts the reader's training; tests/integration/stock has it",
    "openssl": "makes keys; the walk runs it",
    "oras": "needs a registry",
    "ots": "is other people's; the walk runs it",
    "pg_dump": "needs PostgreSQL; the test of docs/backup.md runs it",
    "pg_restore": "as pg_dump",
    "redis-cli": "needs a user of Redis that the reader makes",
    "sha256sum": "is everybody's; the walk runs it",
    "srun": "needs Slurm",
    "sudo": "needs root",
    "systemctl": "needs root",
    "torchrun": "starts the reader's training; tests/unit/integrations has it",
    "xargs": "passes on to docker",
}
NUMBERS = {"N": "1", "HOST:PORT": "127.0.0.1:9464"}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
page_by_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


@cache
def parser() -> argparse.ArgumentParser:
    """The command line's own."""
    return cli.parser()


def nested(words: list[str]) -> list[str]:
    """The command that another one starts: behind ``--``, ``entrypoint``, ``sudo``; of python."""
    for start in ("--", "entrypoint"):
        if start in words:
            return words[words.index(start) + 1 :]
    if words[0] == "sudo":
        return words[3:] if words[1] == "-u" else words[1:]
    return words[words.index("python") :] if "python" in words[1:] else []


def problem(words: list[str], capsys: pytest.CaptureFixture[str]) -> str | None:
    """What is wrong with a command; None where nothing is."""
    program, *arguments = words
    program = program.removeprefix(".venv/bin/")
    for word in words:
        named = re.fullmatch(r"(?:deploy|examples|configs)/[\w./-]+", word)
        if named and not (ROOT / word).exists() and not word.startswith("deploy/secrets"):
            return f"no file {word}"
    if program == "provenance":
        try:
            parser().parse_args(arguments)
        except SystemExit as ended:
            return capsys.readouterr().err if ended.code else None
    elif program == "make":
        return f"no target {arguments}" if set(arguments) - TARGETS else None
    elif program == "pip":
        asked = re.findall(r"(?:ml-provenance|^\.)\[([\w,]+)\]", "\n".join(arguments))
        unknown = {extra for extras in asked for extra in extras.split(",")} - set(EXTRAS)
        return f"no extra {unknown}" if unknown else None
    elif program in ("python", "python3"):
        module = arguments[1] if arguments[0] == "-m" else None
        if module == "pip":
            return problem(arguments[1:], capsys)
        if module and importlib.util.find_spec(module) is None:
            return f"no module {module}"
    elif not program.isupper() and program not in SHELL | set(STOCK):
        return f"{program}: not a program that tests/unit/docs/test_commands.py knows"
    started = nested(words)
    return problem(started, capsys) if started else None


@page_by_page
def test_every_command_of_a_block_exists(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = []
    for block in readme.blocks(page.read_text(encoding="utf-8")):
        if page.name != "FORMAT.md":  # whose blocks are vectors
            assert block.language in LANGUAGES, f"{page}: a block of {block.language!r}"
        if block.language in ("bash", "sh"):
            checked = subprocess.run(["bash", "-n"], input=block.text, text=True, check=False)
            assert checked.returncode == 0, block.text
        if block.language in ("bash", "sh", "cron"):
            script = re.sub(r"^(?:[\d*/,-]+ ){5}", "", block.text, flags=re.MULTILINE)
            for words in readme.commands(script):
                wrong = problem(words, capsys)
                problems += [f"{' '.join(words)}: {wrong}"] if wrong else []
    assert problems == []


@page_by_page
def test_every_command_in_a_line_exists(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for span in readme.spans(page.read_text(encoding="utf-8")):
        if not re.match(r"(?:provenance|make|pip) ", span):
            continue
        words = [NUMBERS.get(word, word) for word in next(readme.commands(span))]
        wrong = problem(words, capsys)
        assert wrong is None or is_name(words, capsys), f"{page.name}: {span}: {wrong}"


def is_name(words: list[str], capsys: pytest.CaptureFixture[str]) -> bool:
    """A command spoken of, without its arguments: `provenance path`."""
    if any(word.startswith("-") for word in words):
        return False
    return problem([*words, "--help"], capsys) is None


@pytest.mark.parametrize(
    "planted",
    [
        "provenance verfy latest",
        "provenance verify --offlin e.zip | cat",
        "cd /srv && X=1 provenance status --sort nothing",
        'ots --bitcoin-node "$(provenance devnet uri bitcoin)" info x.ots',
        "docker compose -f deploy/compose.yaml exec confirm entrypoint provenance statsu",
        "sudo -u provenance provenance backups /srv/backup",
        "sh deploy/make-secret.sh",
        "provenance run -- pythn train.py",
        "python -m provenance.app.shipp --spool spool",
        "pip install 'ml-provenance[worker]'",
        "make demos",
    ],
)
def test_a_command_that_there_is_not_is_found(
    planted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [words for words in readme.commands(planted) if problem(words, capsys)] != []


def test_no_program_is_listed_that_no_page_names() -> None:
    text = "".join(
        block.text
        for page in PAGES
        for block in readme.blocks(page.read_text())
        if block.language in ("bash", "sh", "cron")
    )
    assert {name for name in STOCK if not re.search(rf"\b{name}\b", text)} == set()


@page_by_page
def test_every_configuration_is_one(page: Path, tmp_path: Path) -> None:
    for block in readme.blocks(page.read_text(encoding="utf-8")):
        if block.language == "json" and "integrations" not in page.parts:  # that shows a record
            (tmp_path / "c.json").write_text(block.text)
            assert settings.load(tmp_path / "c.json", tmp_path).training == {}


# --- programs -----------------------------------------------------------------------------


def python_problems(text: str) -> Iterator[str]:
    """Imports from provenance that fail, attributes and keywords that there are not."""
    tree = ast.parse(text)
    names: dict[str, Any] = {
        "provenance": provenance,
        "run": Run,
        "tracker": provenance.ProvenanceTracker,
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("provenance"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if hasattr(module, alias.name):
                    names[alias.asname or alias.name] = getattr(module, alias.name)
                else:
                    yield f"{node.module} has no {alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            try:
                called = resolve(node.func, names)
                known = inspect.signature(called).parameters if called else {}
            except AttributeError as error:
                yield str(error)
                continue
            open_ended = any(p.kind is p.VAR_KEYWORD for p in known.values())
            if called and not open_ended:
                given = {keyword.arg for keyword in node.keywords if keyword.arg}
                yield from (f"{ast.unparse(node)}: no {name}=" for name in given - set(known))


def resolve(node: ast.expr, names: dict[str, Any]) -> Any:
    """The object that a name or an attribute of one stands for; None where it is not ours."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = resolve(node.value, names)
        return getattr(owner, node.attr) if owner is not None else None
    return None


@pytest.mark.slow
@page_by_page
def test_every_name_of_a_program_exists(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    programs = [b for b in readme.blocks(page.read_text()) if b.language in ("python", "py")]
    assert [wrong for block in programs for wrong in python_problems(block.text)] == []


@pytest.mark.parametrize(
    "planted",
    [
        "from provenance.integrations.sklearn import record_fits",
        "import provenance\nprovenance.runs()",
        "provenance.run(names='a')",
        "run.log({}, steps=1)",
        "tracker.track_epochs(1, {})",
    ],
)
def test_a_name_that_there_is_not_is_found(planted: str) -> None:
    assert list(python_problems(planted)) != []
