"""The report of a verification: ``report.json`` for machines, ``report.html`` for people.

The page stands by itself: style inside, no script, nothing loaded. The template escapes every
value; names and values of metrics are whatever a trainer wrote.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from provenance import files
from provenance.bundle.shell_proof import shell_commands
from provenance.errors import InputError, MissingExtraError, ProofError
from provenance.evidence.placement import newest_tree
from provenance.evidence.run_evidence import RunEvidence, lenient
from provenance.verify.report import EpochMetrics, VerificationReport, number

if TYPE_CHECKING:
    from jinja2 import Environment

WIDTH: Final = 440
HEIGHT: Final = 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, WIDTH - 14, 14, HEIGHT - 42
_MAX_DOTS: Final = 80
MAX_PLOTS: Final = 24
MAX_ROWS: Final = 400
MAX_COLUMNS: Final = 12
MAX_SHOWN_CHARS: Final = 6000
_OUTSIDE_TREE: Final = {
    "late": "Late: came after their seal and are under no root",
    "unsealed": "Not sealed yet: under no root so far",
    "control": "Control records: what the trainer announced; no leaves, under its signature",
}
Point = tuple[float, float | None]
"""``(x, y)``; a ``y`` that is None, NaN or infinite is a gap."""


def write_report(report: VerificationReport, folder: Path, mode: int = files.PUBLIC) -> Path:
    """Write ``report.json`` and ``report.html`` into a folder, each whole or not at all; the path
    of ``report.html``. ``InputError`` where it cannot be written, ``MissingExtraError`` without
    Jinja2."""
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
    """The HTML page."""
    records = report.evidence.records
    names = list(dict.fromkeys(name for row in report.metrics for name in row.values))
    numeric = [
        n for n in names if any(number(row.values.get(n)) is not None for row in report.metrics)
    ]
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


def _plot(name: str, rows: Sequence[EpochMetrics]) -> str:
    """One metric by epoch, with a line for each rank."""
    ranks = sorted({row.rank for row in rows})
    series: dict[str, list[Point]] = {}
    for rank in ranks:
        label = f"{name} rank {rank}" if len(ranks) > 1 else name
        series[label] = [
            (float(row.epoch), number(row.values[name]))
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


def line_plot(series: Mapping[str, Sequence[Point]], y_label: str, x_label: str = "epoch") -> str:
    """An SVG of lines over one pair of axes, each with its points in the order of x; a gap is
    marked with a cross at the bottom."""
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points if y is not None and math.isfinite(y)]
    x_axis = _Axis(xs, _LEFT, _RIGHT, whole=True)
    y_axis = _Axis(ys, _BOTTOM, _TOP)
    return fill(
        "plot.svg.j2",
        x_label=x_label,
        y_label=y_label,
        width=WIDTH,
        height=HEIGHT,
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        bottom=_BOTTOM,
        x_ticks=x_axis.ticks(),
        y_ticks=y_axis.ticks(),
        lines=[_line(name, points, x_axis, y_axis) for name, points in series.items()],
    )


class _Axis:
    """Maps values to pixels; survives an empty, a single and the widest range."""

    def __init__(self, values: Sequence[float], start: float, end: float, whole: bool = False):
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if low == high:
            margin = 1.0 if whole or low == 0 else abs(low) * 0.1
            low, high = low - margin, high + margin
            if not (math.isfinite(low) and math.isfinite(high)):
                low, high = min(values) / 2, max(values) / 2
        self.low, self.high, self.start, self.end, self.whole = low, high, start, end, whole

    def pixel(self, value: float) -> float:
        """The pixel of a value. Halved first: the span of two doubles may be no double."""
        span = self.high / 2 - self.low / 2
        share = (value / 2 - self.low / 2) / span if span else 0.5
        return self.start + (self.end - self.start) * share

    def ticks(self) -> list[tuple[float, float]]:
        """Round values, four to eight of them, and their pixels."""
        return [(value, self.pixel(value)) for value in self._round_values()]

    def _round_values(self) -> list[float]:
        span = self.high - self.low
        if not math.isfinite(span) or span <= abs(self.high) * 1e-12:
            return [self.low, self.high]
        raw = span / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw), raw)
        step = max(1.0, float(round(step))) if self.whole else step
        if not step:
            return [self.low, self.high]
        first = math.ceil(self.low / step)
        ticks = [(first + i) * step for i in range(9)]
        return [tick for tick in ticks if tick <= self.high * (1 + 1e-12)] or [self.low]


class _Line(NamedTuple):
    """One line in pixels: its SVG path, dots ``(x, y, text)`` and gaps ``(x, text)``."""

    path: str
    dots: list[tuple[float, float, str]]
    gaps: list[tuple[float, str]]


def _line(name: str, points: Sequence[Point], x_axis: _Axis, y_axis: _Axis) -> _Line:
    path, drawing = "", False
    dots, gaps = [], []
    for x, y in points:
        left, label = x_axis.pixel(x), f"{name} epoch {x:g}"
        if y is None or not math.isfinite(y):
            drawing = False
            shown = "not a number" if y is None or math.isnan(y) else str(y)
            gaps.append((left, f"{label}: {shown}"))
            continue
        top = y_axis.pixel(y)
        path += f"{'L' if drawing else 'M'}{left:.1f} {top:.1f}"
        dots.append((left, top, f"{label}: {y:.6g}"))
        drawing = True
    return _Line(path, dots if len(dots) <= _MAX_DOTS else [], gaps)


@cache
def _environment() -> Environment:
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "workers") from error
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).resolve().parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def fill(name: str, **values: object) -> str:
    """A template with its values, each escaped; one that is not there is an error."""
    return _environment().get_template(name).render(values)
