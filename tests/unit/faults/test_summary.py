"""The table of the fault tests says what the rows say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.faults import summary
from tests.support.paths import ROOT


def row(number: int, passed: bool = True, **changes: object) -> dict[str, object]:
    return {
        "scenario": number, "title": f"title {number}", "kills": 2, "events": 1000, "lost": 0,
        "doubled": 0, "seed": 7, "passed": passed, "seconds": 1.4, "note": "", **changes,
    }  # fmt: skip


def tree(root: Path, rows: list[dict[str, object]]) -> None:
    (root / "build" / "faults").mkdir(parents=True)
    (root / "docs").mkdir()
    for number, value in enumerate(rows):
        (root / "build" / "faults" / f"{number}.json").write_text(json.dumps(value))
    text = f"before\n{summary.BEGIN}\nold\n{summary.END}\nafter\n"
    (root / "docs" / "reliability.md").write_text(text)


def test_rows_of_one_scenario_are_added_up(tmp_path: Path) -> None:
    rows = [row(n) for n in summary.SCENARIOS] + [row(4, kills=3, note="more")]
    tree(tmp_path, rows)
    assert summary.main(tmp_path) == 0
    page = (tmp_path / "docs" / "reliability.md").read_text()
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "old" not in page
    assert "| 4 | title 4 | 5 | 2,000 | 0 | 0 | 3 | 7 | passed |" in page
    found = json.loads((tmp_path / "build" / "faults.json").read_text())
    assert [r["scenario"] for r in found] == list(summary.SCENARIOS)
    assert found[3]["note"] == "more"
    assert {"scenario", "title", "kills", "events", "lost", "doubled", "seed", "seconds"} <= set(
        found[0]
    )


def test_tests_of_one_scenario_share_a_title() -> None:
    titles = ["forks (loader)", "forks (tree), many", "a dead spool"]
    rows = [row(3, title=title, events=9 - n) for n, title in enumerate(titles)]
    assert summary.merged(rows)[2]["title"] == "forks"
    same = [row(3, title="a, b (c)"), row(3, title="a, b (c)")]
    assert summary.merged(same)[2]["title"] == "a, b (c)"


@pytest.mark.parametrize("missing", [True, False])
def test_a_failed_or_missing_scenario_fails_the_run(tmp_path: Path, missing: bool) -> None:
    rows = [row(n) for n in summary.SCENARIOS if n != 9]
    tree(tmp_path, rows if missing else [*rows, row(9), row(9, passed=False)])
    assert summary.main(tmp_path) == 1
    assert "**FAILED**" in (tmp_path / "docs" / "reliability.md").read_text()


def test_each_scenario_that_a_test_tries_has_a_row_on_the_page() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests/faults").rglob("test_*.py"))
    tried = {5, 6, *map(int, re.findall(r"\bscenario\((\d+),", sources))}  # those two: parameters
    assert tried == set(summary.SCENARIOS)
    page = (ROOT / "docs/reliability.md").read_text()
    rows = re.findall(r"^\| (\d+) \| .+ \| passed \|$", page, re.MULTILINE)
    assert rows == [str(number) for number in summary.SCENARIOS]
