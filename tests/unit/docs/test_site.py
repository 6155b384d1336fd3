"""The documents, the workflows and the Makefile say what is there."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import provenance
from provenance import cli
from provenance.verify.catalogue import CHECKS
from tests.support import readme
from tests.support.paths import ROOT

DOCS = ROOT / "docs"


def test_the_reference_lists_what_is_public_and_nothing_else() -> None:
    listed = set(re.findall(r"`(\w+)`", (DOCS / "reference/README.md").read_text()))
    assert listed == {*provenance.__all__, "provenance"} - {"__version__"}
    shown = {
        name
        for page in (DOCS / "reference").glob("*.md")
        for name in re.findall(r"^::: provenance\.(\w+)$", page.read_text(), re.MULTILINE)
    }
    assert shown >= listed - {"provenance"}


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert pages == set(re.findall(r"[\w/-]+\.md", text))


@pytest.mark.parametrize("page", readme.markdown(ROOT), ids=lambda p: str(p.relative_to(ROOT)))
def test_linked_files_and_headings_exist(page: Path) -> None:
    for path, anchor in readme.links(page, ROOT):
        assert path.exists(), path
        assert not anchor or anchor in readme.anchors(path), f"{path}#{anchor}"


def test_the_lines_that_the_trainer_s_road_explains_are_told() -> None:
    page = (DOCS / "trainers.md").read_text().partition("\n## What a line")[2]
    told = [
        span
        for row in re.findall(r"^\|([^|]+)\|", page, re.MULTILINE)
        for span in readme.spans(row)
    ]
    files = (ROOT / "provenance").rglob("*.py")
    source = re.sub(r'"\n +f?"', "", "".join(path.read_text() for path in files))
    parts = {part.strip() for span in told for part in re.split(r"\.\.\.|01a2", span)}
    assert len(parts) > 10
    assert {part for part in parts if part not in source} == set()


def test_every_command_has_its_row() -> None:
    rows = re.findall(r"^\| (`.+?`) \|", (DOCS / "reference/commands.md").read_text(), re.MULTILINE)
    (subcommands,) = [a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction)]
    assert set(re.findall(r"`([\w-]+)`", " ".join(rows))) == set(subcommands.choices)


def test_the_auditor_s_road_has_every_check() -> None:
    rows = re.findall(r"^\| (\(\d+\) .+?) \|", (DOCS / "auditors.md").read_text(), re.MULTILINE)
    assert rows == [f"({check.number}) {check.title}" for check in CHECKS]


def test_decisions_are_numbered_and_listed_with_a_status() -> None:
    pages = sorted(page.name for page in (DOCS / "decisions").glob("0*.md"))
    assert [int(name[:4]) for name in pages] == list(range(1, len(pages) + 1))
    index = (DOCS / "decisions/README.md").read_text()
    rows = re.findall(
        r"^\| \[(\d{4})\]\((\S+)\) \| .+ \| (?:accepted|superseded by \d{4}) \|$",
        index,
        re.MULTILINE,
    )
    assert rows == [(name[:4], name) for name in pages]


def test_the_version_is_told_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project
    assert "version" in project["dynamic"]
    servers = tomllib.loads((ROOT / "deploy/devnet/pyproject.toml").read_text())["project"]
    assert servers["version"] == provenance.__version__
    assert f"\n## {provenance.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split()[1] for line in shown.stdout.splitlines()] != []
    assert {line.split()[1] for line in shown.stdout.splitlines()} == set(phony.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", [".github/workflows/ci.yml", ".github/workflows/release.yml"]),
        ("vendor.dependabot", [".github/dependabot.yml"]),
    ],
)
def test_workflow_files_are_valid(schema: str, files: list[str]) -> None:
    """By the JSON schemas of schemastore.org that check-jsonschema carries."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_workflows_call_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    called = set()
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        jobs = yaml.safe_load(path.read_text())["jobs"]
        commands = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
        called |= set(re.findall(r"\bmake (\w+)", "\n".join(commands)))
    assert called == {"lint", "quick", "docs", "dist"}
    for target in called:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_how_it_grows_names_rows_of_the_benchmarks() -> None:
    measured = set(re.findall(r"^\| (.+?) \|", (DOCS / "benchmarks.md").read_text(), re.MULTILINE))
    table = re.findall(r"^\|.+\|.+\|(.+)\|$", (DOCS / "scale.md").read_text(), re.MULTILINE)
    named = {name for cell in table for name in re.findall(r"`([^`]+)`", cell)}
    assert len(named) > 20
    assert named <= measured


def test_each_integration_has_an_extra_a_row_and_a_short_example_that_a_test_runs() -> None:
    pages = {page.stem for page in (DOCS / "integrations").glob("*.md")} - {"index"}
    table = (DOCS / "integrations/index.md").read_text()
    rows = re.findall(r"^\| .*?\((\w+)\.md\) \|.* \d+ \| .+ \| .+ \|$", table, re.MULTILINE)
    assert sorted(rows) == sorted(pages)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"]) | {"pytorch", "autolog"}  # torch's; of each
    assert pages <= extras
    unit = ROOT / "tests/unit"
    files = [*unit.glob("integrations/*.py"), *unit.glob("autologging/*.py")]
    tests = "".join(path.read_text() for path in files)
    examples = {path.stem: path for path in (ROOT / "examples").glob("*.py")}
    run = {name for name in examples if re.search(rf'"{name}"|"examples/{name}\.py"', tests)}
    assert sorted(name.split("_")[0] for name in run) == sorted(pages)
    long = {name for name in run if len(examples[name].read_text().splitlines()) >= 40}
    assert long == set()
