"""The report of a verification: ``report.json`` for machines, ``report.html`` for people.

The page stands by itself: style inside, no script, nothing loaded. The template escapes every
value; names and values of metrics are whatever a trainer wrote.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from provenance import files
from provenance.bundle.shell_proof import shell_commands
from provenance.errors import InputError, ProofError
from provenance.evidence.placement import newest_tree
from provenance.evidence.run_evidence import RunEvidence, lenient
from provenance.report.plot import Point, line_plot
from provenance.report.templates import fill
from provenance.verify.report import EpochMetrics, VerificationReport, number

MAX_PLOTS: Final = 24
MAX_ROWS: Final = 400
MAX_COLUMNS: Final = 12
MAX_SHOWN_CHARS: Final = 6000
_OUTSIDE_TREE: Final = {
    "late": "Late: came after their seal and are under no root",
    "unsealed": "Not sealed yet: under no root so far",
    "control": "Control records: what the trainer announced; no leaves, under its signature",
}


def write_report(report: VerificationReport, folder: Path, mode: int = files.PUBLIC) -> Path:
    """Write ``report.json`` and ``report.html`` into a folder, each whole or not at all.

    Args:
        mode: Of the files; the folder's fits it.

    Returns:
        The path of ``report.html``.

    Raises:
        InputError: The folder cannot be written.
        MissingExtraError: Jinja2 is not installed.
    """
    page = folder / "report.html"
    text, document = render(report), json.dumps(report.as_dict(), indent=2) + "\n"
    try:
        files.make_folders(folder, mode)
        for path, content in ((folder / "report.json", document), (page, text)):
            files.replace(path, content.encode("utf-8", "backslashreplace"), mode)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
    return page


def render(report: VerificationReport) -> str:
    """The HTML page.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
    records = report.evidence.records
    names = list(dict.fromkeys(name for row in report.metrics for name in row.values))
    numeric = [n for n in names if any(_number(row, n) is not None for row in report.metrics)]
    commands, no_commands = _commands(report.evidence)
    return fill(
        "page.html.j2",
        report=report,
        evidence=report.evidence,
        records={record.path: record for record in records},
        bad_paths=_bad_paths(report),
        outside_tree=[
            (title, [record for record in records if record.place == place])
            for place, title in _OUTSIDE_TREE.items()
        ],
        plots=[(name, _plot(name, report.metrics)) for name in numeric[:MAX_PLOTS]],
        plots_left_out=len(numeric[MAX_PLOTS:]),
        columns=names[:MAX_COLUMNS],
        max_rows=MAX_ROWS,
        commands=commands,
        no_commands=no_commands,
        version=_version(),
        time=_time,
        metric=_metric,
        record_body=_record_body,
    )


def _bad_paths(report: VerificationReport) -> set[str]:
    """The paths of the run tree with a finding at or below them."""
    paths: set[str] = set()
    for finding in report.findings:
        parts = (finding.path or finding.subject).split("/")
        paths |= {"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
    return paths


def _number(row: EpochMetrics, name: str) -> float | None:
    return number(row.values.get(name))


def _plot(name: str, rows: Sequence[EpochMetrics]) -> str:
    """One metric by epoch, with a line for each rank."""
    ranks = sorted({row.rank for row in rows})
    series: dict[str, list[Point]] = {}
    for rank in ranks:
        label = f"{name} rank {rank}" if len(ranks) > 1 else name
        series[label] = [
            (float(row.epoch), _number(row, name))
            for row in rows
            if row.rank == rank and name in row.values
        ]
    return line_plot(series, name)


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


# --- what the template calls ----------------------------------------------------------------


def _metric(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)[:80]


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} s"


def _record_body(data: bytes) -> str:
    """A record's body, indented; the bytes as they are where they are no record."""
    text = data.decode("utf-8", "backslashreplace")
    with suppress(RecursionError):
        body = lenient(data).get("body")
        text = text if body is None else json.dumps(body, indent=2, ensure_ascii=False)
    if len(text) > MAX_SHOWN_CHARS:
        return f"{text[:MAX_SHOWN_CHARS]}\n... {len(text) - MAX_SHOWN_CHARS} more characters"
    return text


def _version() -> str:
    try:
        return metadata.version("ml-provenance")
    except metadata.PackageNotFoundError:
        return "(not installed)"
