"""The program that shows what a service carries, in its small form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.benchmarks import service

FIGURES = [
    "20 runs found in the spool: all anchored",
    "the same: 20 reports",
    "4 trainers of 5 epochs at once, started within 1 s: they take",
    "the same: events, of them lost",
    "the same: lag 0 after the last event",
    "the same: all anchored after it",
    "the same: all reports after it",
    "24 runs: database, a run",
    "24 runs: report, a run",
    "then `provenance status`",
    "then `provenance fsck`",
    "then `provenance verify --all`",
]


@pytest.mark.slow
@pytest.mark.nodes
def test_few_trainers_and_few_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a PostgreSQL where there is one, which is empty when the fleet starts."""
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n{service.BEGIN}\nold\n{service.END}\n\nAfter.\n")
    monkeypatch.setattr(service, "PAGE", page)
    words = "--trainers 4 --epochs 5 --within 1 --runs 20 --write"
    service.main(words.split())
    told = capsys.readouterr().out
    table = dict(re.findall(r"^\| (.+) \| (.+) \|$", told, re.MULTILINE))
    assert [*table][2:] == FIGURES
    assert table["the same: events, of them lost"] == "40, 0"
    assert f"`python -m tests.benchmarks.service {words}`" in told
    assert page.read_text() == (f"# Before\n\n{service.BEGIN}\n{told}{service.END}\n\nAfter.\n")
