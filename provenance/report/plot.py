"""Line plots as inline SVG: no script, no font, no file beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from provenance.report.templates import fill

WIDTH: Final = 440
HEIGHT: Final = 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, WIDTH - 14, 14, HEIGHT - 42
_MAX_DOTS: Final = 80

Point = tuple[float, float | None]
"""``(x, y)``; a ``y`` that is None, NaN or infinite is a gap."""


def line_plot(series: Mapping[str, Sequence[Point]], y_label: str, x_label: str = "epoch") -> str:
    """An SVG of lines over one pair of axes; a gap is marked with a cross at the bottom.

    Args:
        series: Points by name, in the order of x.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
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
