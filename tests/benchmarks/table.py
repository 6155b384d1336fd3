"""The table of benchmarks: a row, whether it keeps its bar, and how all of them are shown."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, TextIO

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

PARTS = 9
_BAR = re.compile(r"(value|ratio) (<=|>=) (\S+)")
_COLUMNS = (
    "name",
    "value",
    "spread",
    "unit",
    "peer",
    "peer value",
    "ratio",
    "bar",
    "met",
    "reason",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement; what there is not is None. ``ratio`` is value / peer value."""

    name: str
    value: float | None = None
    unit: str = ""
    spread: tuple[float, float] | None = None
    """Least and greatest median of consecutive parts of the samples."""
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    bar: str | None = None
    """``value`` or ``ratio``, ``<=`` or ``>=``, a number."""
    met: bool | None = None
    reason: str = ""
    """Why the bar is not met, where that is known, or why nothing was measured."""

    def cells(self) -> list[str]:
        """As the table shows it, a text a column."""
        met = {None: "", True: "yes", False: "no"}[self.met]
        low, high = map(_number, self.spread or (None, None))
        return [
            self.name, _number(self.value), f"{low} .. {high}" if low != high else "", self.unit,
            self.peer or "", _number(self.peer_value), _number(self.ratio), self.bar or "", met,
            self.reason,
        ]  # fmt: skip


def row(
    name: str, unit: str, samples: Sequence[float], peer: tuple[str, Sequence[float]] | None = None,
    bar: str | None = None, reason: str = "", quantile: float = 0.5,
) -> Row:  # fmt: skip
    """A row of samples taken in one run of the program.

    Args:
        name: What is measured.
        unit: Of the samples, the peer's too.
        samples: In the order in which they were taken.
        peer: What it is measured beside, and its samples.
        bar: As in :class:`Row`.
        reason: Shown where the bar is not met.
        quantile: 0.5, the median, or for instance 0.99.
    """
    value = _quantile(samples, quantile)
    peer_value = None if peer is None else _quantile(peer[1], quantile)
    ratio = value / peer_value if peer_value else None
    size = max(1, len(samples) // PARTS)
    parts = [_quantile(samples[at : at + size], quantile) for at in range(0, len(samples), size)]
    met = None if bar is None else _met(bar, value, ratio)
    return Row(
        name, _rounded(value), unit, (_rounded(min(parts)), _rounded(max(parts))),
        None if peer is None else peer[0], None if peer_value is None else _rounded(peer_value),
        None if ratio is None else _rounded(ratio), bar, met, "" if met in (True, None) else reason,
    )  # fmt: skip


def missing(name: str, how: str) -> Row:
    """A row that was not measured, and how to get it."""
    return Row(name, reason=f"not measured: {how}")


def _met(bar: str, value: float, ratio: float | None) -> bool:
    match = _BAR.fullmatch(bar)
    assert match is not None, bar
    column, sign, limit = match.groups()
    compared = value if column == "value" else ratio
    assert compared is not None, bar
    return compared <= float(limit) if sign == "<=" else compared >= float(limit)


def _quantile(samples: Sequence[float], quantile: float) -> float:
    if quantile == 0.5:
        return median(samples)
    return sorted(samples)[int(len(samples) * quantile)]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def document(command: str, rows: Iterable[Row]) -> dict[str, Any]:
    """Command, date, machine and rows."""
    cpus, memory = os.cpu_count(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {_processor()}, {cpus} CPUs, "
        f"{memory / 2**30:.0f} GiB, Python {platform.python_version()}",
        "rows": [asdict(one) for one in rows],
    }


def _processor() -> str:
    names = re.findall(r"model name\s*: (.+)", _text(Path("/proc/cpuinfo")))
    return names[0] if names else platform.processor()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def rows_of(found: Mapping[str, Any]) -> list[Row]:
    """The rows of a :func:`document`, also of one that was read from JSON."""
    return [
        Row(**one | {"spread": tuple(one["spread"]) if one["spread"] else None})
        for one in found["rows"]
    ]


def show(found: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """The command and the table; in plain text where the stream (stdout) is no terminal."""
    stream = stream or sys.stdout
    console = Console(file=stream, width=None if stream.isatty() else 250)
    table = Table(box=SIMPLE if stream.isatty() else None)
    numbers = ("value", "spread", "peer value", "ratio")
    for column in _COLUMNS:
        table.add_column(column, justify="right" if column in numbers else "left")
    for one in rows_of(found):
        style = "red" if one.met is False else "dim" if one.value is None else ""
        table.add_row(*map(Text, one.cells()), style=style)
    console.print(f"$ {found['command']}", highlight=False, markup=False)
    console.print(table)


def write_json(found: Mapping[str, Any], path: Path) -> None:
    """The document, a row a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {key: value for key, value in found.items() if key != "rows"}
    rows = ",\n".join(json.dumps(one) for one in found["rows"])
    path.write_text(f'{json.dumps(head)[:-1]}, "rows": [\n{rows}\n]}}\n')


def markdown(found: Mapping[str, Any]) -> str:
    """A page of the documentation."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + " --- |" * len(_COLUMNS)]
    lines += [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in one.cells()) + " |"
        for one in rows_of(found)
    ]
    table = "\n".join(lines)
    return f"""# Benchmarks

Written by `{found["command"]}` on {found["date"]}: {found["machine"]}.

Value and peer value are medians (p99: the 99th percentile) of one run of the program, in which
both take turns; spread is the least and the greatest median of consecutive parts of the samples.
Ratio is value / peer value. A bar that is not met fails nothing: time depends on the machine.
[How it grows](scale.md) says what these rows mean for a deployment. `make bench` measures anew.

{table}
"""
