"""Lines over a pair of axes, as SVG; train and validation of one metric share a plot."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from provenance.report.template import fill

WIDTH: Final = 440
HEIGHT: Final = 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, WIDTH - 14, 14, HEIGHT - 42
_MAX_DOTS: Final = 80
MAX_NAMES: Final = 6
"""As many as there are colours."""
_NAME_HEIGHT: Final = 14
MAX_POINTS: Final = 600
"""Of a line; of a longer one, the least and the greatest of as many stretches as fit."""
_SPLIT: Final = re.compile(r"(?:train|training|val|valid|validation|test|eval)[_/. -](?=.)")
Point = tuple[float, float | None]
"""``(x, y)``; a ``y`` that is None, NaN or infinite is a gap."""


def by_subject(names: Iterable[str]) -> dict[str, list[str]]:
    """Names of metrics that belong into one plot, by what they measure: ``train_loss``,
    ``val/loss`` and ``loss`` are all ``loss``."""
    subjects: dict[str, list[str]] = {}
    for name in names:
        subjects.setdefault(_SPLIT.sub("", name, count=1), []).append(name)
    return subjects


def thinned(points: Sequence[Point], most: int = MAX_POINTS) -> Sequence[Point]:
    """At most ``most``, gaps among them, with each stretch's least and greatest value, and the
    first and the last point."""
    if len(points) <= most:
        return points
    width = -(-len(points) // ((most - 2) // 3))
    kept: list[Point] = []
    for at in range(0, len(points), width):
        part = points[at : at + width]
        known = [(y, x) for x, y in part if y is not None and math.isfinite(y)]
        gaps = [(x, y) for x, y in part if y is None or not math.isfinite(y)]
        ends = {(x, y) for y, x in (min(known), max(known))} if known else set()
        kept += sorted([*ends, *gaps[:1]], key=lambda point: point[0])
    first, last = points[:1], points[-1:]
    return [*first[: first[0] != kept[0]], *kept, *last[: last[0] != kept[-1]]]


def line_plot(series: Mapping[str, Sequence[Point]], y_label: str, x_label: str = "epoch") -> str:
    """An SVG of lines over one pair of axes, each with its points in the order of x, a long one
    `thinned`; a gap is marked with a cross at the bottom. The names of several stand above, where
    no line is."""
    names = list(series)[:MAX_NAMES] if len(series) > 1 else []
    top, bottom = (edge + _NAME_HEIGHT * len(names) for edge in (_TOP, _BOTTOM))
    series = {name: thinned(points) for name, points in series.items()}
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points if y is not None and math.isfinite(y)]
    x_axis = _Axis(xs, _LEFT, _RIGHT, whole=True)
    y_axis = _Axis(ys, bottom, top)
    return fill(
        "plot.svg.j2",
        x_label=x_label,
        y_label=y_label,
        width=WIDTH,
        height=HEIGHT + bottom - _BOTTOM,
        left=_LEFT,
        right=_RIGHT,
        top=top,
        bottom=bottom,
        x_ticks=x_axis.ticks(),
        y_ticks=y_axis.ticks(),
        lines=[
            _line(f"{name} {x_label}", points, x_axis, y_axis) for name, points in series.items()
        ],
        names=names,
        name_height=_NAME_HEIGHT,
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
        if not math.isfinite(span) or span <= max(abs(self.high) * 1e-12, sys.float_info.min):
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
        left, label = x_axis.pixel(x), f"{name} {x:g}"
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
