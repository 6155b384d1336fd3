"""The report of a verification: ``report.json`` for machines, ``report.html`` for people.

The page stands by itself: style inside, no script, nothing loaded. The template escapes every
value; names and values of metrics are whatever a trainer wrote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from provenance import files
from provenance.bundle.shell_proof import shell_commands
from provenance.errors import InputError, ProofError
from provenance.evidence.placement import newest_tree
from provenance.evidence.run_evidence import RecordFile, RunEvidence, lenient
from provenance.evidence.run_summary import step_series
from provenance.evidence.story import process_names
from provenance.formats.record import Kind, Record
from provenance.report.plot import Point, by_subject, line_plot
from provenance.report.summary import label_of, shown, summary_of
from provenance.report.template import HERE, fill
from provenance.report.tree_picture import tree_picture
from provenance.verify.checks.privacy import budgets
from provenance.verify.report import EpochMetrics, Outcome, VerificationReport, number

MAX_PLOTS: Final = 24
MAX_ROWS: Final = 400
MAX_COLUMNS: Final = 12
MAX_SHOWN_CHARS: Final = 6000
MAX_LISTED: Final = 60
"""Nodes below one node of the tree, and records outside of it: the first and the last of them."""
OUTCOMES: Final[Mapping[Outcome, str]] = {
    "verified": "Everything that was checked holds, and rests on what was pinned.",
    "anchored": "All of it agrees, the ledger's key is pinned and a pinned chain has an anchor; "
    "more was required.",
    "consistent": "All of it agrees with itself. What it rests on was not pinned, or something "
    "could not be checked.",
    "failed": "Something does not hold: see the findings.",
}
"""What the badge at the top means."""
_DRAWN: Final = (Kind.METRICS, Kind.STEPS, Kind.PRIVACY)
_OUTSIDE_TREE: Final = {
    "late": "Late: came after their seal and are under no root",
    "unsealed": "Not sealed yet: no leaves so far",
    "control": "Control records: what the trainer announced; no leaves, under its signature",
}


def write_report(report: VerificationReport, folder: Path, mode: int = files.PUBLIC) -> Path:
    """Write ``report.json`` and ``report.html`` into a folder, each whole or not at all; the path
    of ``report.html``. ``InputError`` where it cannot be written, ``MissingExtraError`` without
    Jinja2."""
    page = folder / "report.html"
    text, document = render(report), json.dumps(report.as_dict(), indent=2) + "\n"
    with files.errors_of(folder, "written"):
        files.make_folders(folder, mode)
        for path, content in ((folder / "report.json", document), (page, text)):
            files.replace(path, content.encode("utf-8", "backslashreplace"), mode)
    return page


def render(report: VerificationReport, folder: Path = HERE, name: str = "page.html.j2") -> str:
    """The HTML page; another template may build on the page's own."""
    records = report.evidence.records
    names = list(dict.fromkeys(name for row in report.metrics for name in row.values))
    plots = plots_of(records, report.metrics)
    commands, no_commands = _commands(report.evidence)
    bad_paths = _bad_paths(report)
    tree = report.tree
    return fill(
        name,
        folder,
        report=report,
        outcomes=OUTCOMES,
        evidence=report.evidence,
        records={record.path: record for record in records},
        summary=summary_of(report.evidence),
        bad_paths=bad_paths,
        tree=tree,
        picture=None if tree is None else tree_picture(tree, bad_paths),
        listed=lambda nodes: _listed(nodes, bad_paths),
        outside_tree=[
            (title, [record for record in records if record.place == place])
            for place, title in _OUTSIDE_TREE.items()
        ],
        plots=[(name, line_plot(*plot)) for name, plot in plots[:MAX_PLOTS]],
        plots_left_out=len(plots[MAX_PLOTS:]),
        unsealed=sum(r.kind in _DRAWN for r in report.evidence.under_no_root),
        columns=names[:MAX_COLUMNS],
        max_rows=MAX_ROWS,
        commands=commands,
        no_commands=no_commands,
        version=version(),
        time=time_of,
        metric=lambda value: "" if value is None else shown(value)[:80],
        record_body=record_body,
    )


def _bad_paths(report: VerificationReport) -> set[str]:
    """The paths of the run tree with a finding at or below them."""
    paths: set[str] = set()
    for finding in report.findings:
        parts = (finding.path or finding.subject).split("/")
        paths |= {"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
    return paths


Plot = tuple[Mapping[str, Sequence[Point]], str, str]
"""Series, and what stands at the two axes."""


def plots_of(
    records: Sequence[RecordFile], metrics: Sequence[EpochMetrics]
) -> list[tuple[str, Plot]]:
    """The privacy budget, then each metric by epoch, then by step; a line for each rank, and train
    and validation of one metric in one plot."""
    ranks = len({row.rank for row in metrics}) > 1
    epochs: dict[str, dict[str, list[Point]]] = {}
    for row in metrics:
        for name, value in row.values.items():
            name = label_of(name)
            label = f"{name} rank {row.rank}" if ranks else name
            own = epochs.setdefault(name, {})
            own.setdefault(label, []).append((float(row.epoch), number(value)))
    plots: list[tuple[str, Plot]] = []
    if privacy := _privacy(records):
        plots.append(("epsilon", (privacy, "epsilon", "epoch")))
    for lines, axis in ((epochs, "epoch"), (_steps(records), "step")):
        for subject, names in by_subject(lines).items():
            series = {label: points for name in names for label, points in lines[name].items()}
            if any(y is not None for points in series.values() for _, y in points):
                plots.append((subject if len(names) > 1 else names[0], (series, subject, axis)))
    return plots


def _privacy(records: Sequence[RecordFile]) -> dict[str, list[Point]]:
    """Epsilon of each process: what another one spent is no part of it."""
    known = {item.path: item.decoded for item in records if isinstance(item.decoded, Record)}
    names = process_names(known.values())
    lines: dict[str, list[Point]] = {}
    for own in chain.from_iterable(budgets(known).values()):
        line = lines.setdefault(f"epsilon {names[own[0][1].producer]}", [])
        for _, record in own:
            stated = record.body.get("privacy")
            epsilon = stated.get("epsilon") if isinstance(stated, dict) else None
            line.append((float(record.epoch or 0), number(epsilon)))
        line.sort(key=itemgetter(0))
    return lines if len(lines) > 1 else dict(zip(["epsilon"], lines.values(), strict=False))


def _steps(records: Sequence[RecordFile]) -> dict[str, dict[str, list[Point]]]:
    """By metric and line, a rank's; steps in the order of their numbers."""
    own = [r for r in records if r.kind is Kind.STEPS and isinstance(r.decoded, Record)]
    ranks = len({record.rank for record in own}) > 1
    found: dict[str, dict[str, list[Point]]] = {}
    for record in own:
        for steps, name, values in step_series(record.decoded):
            name = label_of(name)
            label = f"{name} rank {record.rank}" if ranks else name
            line = found.setdefault(name, {}).setdefault(label, [])
            line += zip(steps, map(number, values), strict=False)
    return {
        name: {label: sorted(line, key=itemgetter(0)) for label, line in lines.items()}
        for name, lines in found.items()
    }


def _listed(nodes: Sequence[Any], bad_paths: set[str]) -> list[Any]:
    """At most `MAX_LISTED` of them, and those with findings; in place of others their number."""
    if len(nodes) <= MAX_LISTED:
        return list(nodes)
    half = MAX_LISTED // 2
    shown: list[Any] = []
    left_out = 0
    for at, node in enumerate(nodes):
        path = node["path"] if isinstance(node, Mapping) else node.path
        if at < half or at >= len(nodes) - half or path in bad_paths:
            shown += [left_out, node] if left_out else [node]
            left_out = 0
        else:
            left_out += 1
    return shown


def _commands(evidence: RunEvidence) -> tuple[str | None, str | None]:
    """Shell commands that check one record, or why there are none."""
    tree = newest_tree(evidence)
    known = [record.path for record in evidence.records if record.place == "tree"]
    path = next((p for p in known if "/metrics/" in p), known[0] if known else None)
    if tree is None or path is None:
        return None, "Nothing is sealed yet."
    try:
        return shell_commands(tree.proof(path), f"evidence/records/{path}.json"), None
    except (InputError, ProofError) as error:
        return None, str(error)


def time_of(seconds: float | None) -> str:
    """Unix seconds as a reader's text."""
    if seconds is None:
        return "-"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} s"


def record_body(data: bytes) -> str:
    """A record's body, indented; the bytes as they are where they are no record."""
    text = data.decode("utf-8", "backslashreplace")
    with suppress(RecursionError):
        body = lenient(data).get("body")
        text = text if body is None else json.dumps(body, indent=2, ensure_ascii=False)
    if len(text) > MAX_SHOWN_CHARS:
        return f"{text[:MAX_SHOWN_CHARS]}\n... {len(text) - MAX_SHOWN_CHARS} more characters"
    return text


def version() -> str:
    """This program's."""
    try:
        return metadata.version("ml-provenance")
    except metadata.PackageNotFoundError:
        return "(not installed)"
