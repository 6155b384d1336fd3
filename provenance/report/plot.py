"""Line plots as inline SVG: no script, no font, no file beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

WIDTH: Final = 440
HEIGHT: Final = 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 42
_COLOURS: Final = 6
_MAX_DOTS: Final = 80

Point = tuple[float, float | None]
"""``(x, y)``; a ``y`` that is None, NaN or infinite is a gap."""


def line_plot(series: Mapping[str, Sequence[Point]], y_label: str, x_label: str = "epoch") -> str:
    """An SVG of lines over one pair of axes; a gap is marked with a cross at the bottom.

    Args:
        series: Points by name, in the order of x.
    """
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points if _finite(y)]
    x_axis = _Axis(xs, _LEFT, WIDTH - _RIGHT, whole=True)
    y_axis = _Axis([y for y in ys if y is not None], HEIGHT - _BOTTOM, _TOP)
    label = escape(f"{y_label} by {x_label}", quote=True)
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">',
        f"<title>{label}</title>",
        *_grid(x_axis, y_axis),
        _text(WIDTH / 2, HEIGHT - 6, x_label, "middle", "axis"),
        f'<text class="axis" x="12" y="{HEIGHT / 2:g}" text-anchor="middle" '
        f'transform="rotate(-90 12 {HEIGHT / 2:g})">{escape(_short(y_label))}</text>',
    ]
    for at, (name, points) in enumerate(series.items()):
        parts += _line(points, x_axis, y_axis, f"s{at % _COLOURS}", name)
    parts.append("</svg>")
    return "\n".join(parts)


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

    def place(self, value: float) -> float:
        """The pixel of a value. Halved first: the span of two doubles may be no double."""
        span = self.high / 2 - self.low / 2
        share = (value / 2 - self.low / 2) / span if span else 0.5
        return self.start + (self.end - self.start) * share

    def ticks(self) -> list[float]:
        """Round values, four to eight of them."""
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


def _grid(x_axis: _Axis, y_axis: _Axis) -> list[str]:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = []
    for tick in y_axis.ticks():
        y = y_axis.place(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(_text(_LEFT - 6, y + 3.5, f"{tick:.4g}", "end"))
    for tick in x_axis.ticks():
        x = x_axis.place(tick)
        parts.append(f'<path class="grid" d="M{x:.1f} {bottom}v4"/>')
        parts.append(_text(x, bottom + 17, f"{tick:g}", "middle"))
    parts.append(f'<path class="frame" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>')
    return parts


def _line(
    points: Sequence[Point], x_axis: _Axis, y_axis: _Axis, colour: str, name: str
) -> list[str]:
    path, dots, gaps, drawing = [], [], [], False
    for x, y in points:
        left = x_axis.place(x)
        if y is None or not _finite(y):
            drawing = False
            told = "not a number" if y is None or math.isnan(y) else str(y)
            start = f"M{left - 3:.1f} {HEIGHT - _BOTTOM - 8}"
            gaps.append(
                f'<path class="gap {colour}" d="{start}l6 6m0 -6l-6 6">'
                f"<title>{escape(name)} epoch {x:g}: {told}</title></path>"
            )
            continue
        top = y_axis.place(y)
        path.append(f"{'L' if drawing else 'M'}{left:.1f} {top:.1f}")
        dots.append(
            f'<circle class="{colour}" cx="{left:.1f}" cy="{top:.1f}" r="2.6">'
            f"<title>{escape(name)} epoch {x:g}: {y:.6g}</title></circle>"
        )
        drawing = True
    parts = [f'<path class="line {colour}" d="{"".join(path)}"/>'] if path else []
    return parts + (dots if len(dots) <= _MAX_DOTS else []) + gaps


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _short(text: str) -> str:
    return text if len(text) <= 36 else f"{text[:33]}..."


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
