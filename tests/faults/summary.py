"""``python -m tests.faults.summary``: the rows of the last long run, as a file and a table.

``kills`` counts what was done to the system: processes killed, answers swallowed, reorgs, lies.

Reads ``build/faults/*.json``, adds up the rows of one scenario, writes ``build/faults.json``
and the table in ``docs/reliability.md``. Exit 1 where a scenario failed or is missing.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
SCENARIOS = (*range(1, 26), *range(27, 33))
KEYS = ("kills", "events", "lost", "doubled", "seconds")

Row = dict[str, Any]


def merged(results: Iterable[Mapping[str, Any]]) -> list[Row]:
    """One row per scenario, in order; those that did not run are there and have not passed.

    Tests of one scenario share the title of the largest, up to where it goes into details.
    """
    rows: dict[int, Row] = {}
    for result in sorted(results, key=lambda each: -each["events"]):
        number = int(result["scenario"])
        row = rows.get(number)
        if row is None:
            rows[number] = {**result, "note": [result["note"]] if result["note"] else []}
            continue
        for key in KEYS:
            row[key] += result[key]
        if row["title"] != result["title"]:
            row["title"] = re.split(r", | \(", row["title"])[0]
        row["passed"] = row["passed"] and result["passed"]
        row["note"] += [result["note"]] if result["note"] else []
    for number in SCENARIOS:
        if number not in rows:
            rows[number] = {
                "scenario": number, "title": "(did not run)", **dict.fromkeys(KEYS, 0),
                "seed": 0, "passed": False, "note": [],
            }  # fmt: skip
    for row in rows.values():
        row["note"] = "; ".join(row["note"])
        row["seconds"] = round(row["seconds"], 1)
    return [rows[number] for number in sorted(rows)]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| # | Scenario | Kills or faults | Events | Lost | Doubled | Seconds | Seed | |",
        "| -: | --- | -: | -: | -: | -: | -: | -: | --- |",
    ]
    for row in rows:
        outcome = "passed" if row["passed"] else "**FAILED**"
        lines.append(
            f"| {row['scenario']} | {row['title']} | {row['kills']:,} | {row['events']:,} "
            f"| {row['lost']} | {row['doubled']} | {row['seconds']:,.0f} | {row['seed']} "
            f"| {outcome} |"
        )
    return "\n".join(lines)


def between_markers(text: str, body: str) -> str:
    """``text`` with what stands between the markers replaced."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"docs/reliability.md has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{body}\n{END}{after}"


def main(root: Path = ROOT) -> int:
    """Exit code."""
    paths = sorted((root / "build" / "faults").glob("*.json"))
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    rows = merged(results)
    (root / "build").mkdir(exist_ok=True)
    (root / "build" / "faults.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    page = root / "docs" / "reliability.md"
    page.write_text(between_markers(page.read_text(encoding="utf-8"), table(rows)), "utf-8")
    print(table(rows))
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
