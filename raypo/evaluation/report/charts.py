"""Small inline SVG charts for the report: no library, no network, colours from the page's CSS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 26
Points = Sequence[tuple[float, float]]


def line_chart(series: Sequence[tuple[str, Points]], x_label: str = "step") -> Markup:
    """Lines over a shared x axis; `series` are (name, points), coloured by their position."""
    points = [point for _, line in series for point in line]
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = _padded(min(ys), max(ys))
    parts = [_frame(x_low, x_high, y_low, y_high, x_label)]
    for index, (name, line) in enumerate(series):
        path = " ".join(f"{_x(x, x_low, x_high):.1f},{_y(y, y_low, y_high):.1f}" for x, y in line)
        parts.append(f'<polyline class="line c{index}" points="{path}"/>')
        if len(line) <= 12:
            for x, y in line:
                cx, cy = _x(x, x_low, x_high), _y(y, y_low, y_high)
                parts.append(f'<circle class="dot c{index}" cx="{cx:.1f}" cy="{cy:.1f}" r="2.5"/>')
        parts.append(f"<title>{escape(name)}</title>")
    return _svg(parts)


@dataclass(frozen=True)
class Bars:
    """One series of a bar chart: a value per group, in the page's colour number `colour`."""

    name: str
    values: Sequence[float]
    colour: int


def bar_chart(groups: Sequence[str], series: Sequence[Bars]) -> Markup:
    """Grouped bars from 0; every series has one value per group."""
    top = max((max(bars.values) for bars in series), default=1.0) * 1.1 or 1.0
    parts = [_frame(None, None, 0.0, top, "")]
    inner = _WIDTH - _LEFT - _RIGHT
    slot = inner / len(groups)
    width = slot * 0.84 / len(series)
    for g, group in enumerate(groups):
        middle = _LEFT + slot * (g + 0.5)
        parts.append(
            f'<text x="{middle:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(group)}</text>'
        )
        for s, bars in enumerate(series):
            x = _LEFT + slot * (g + 0.08) + width * s
            y = _y(bars.values[g], 0.0, top)
            height = _HEIGHT - _BOTTOM - y
            label = f"<title>{escape(bars.name)}: {bars.values[g]:.3f}</title>"
            parts.append(
                f'<rect class="bar c{bars.colour}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                f'height="{height:.1f}">{label}</rect>'
            )
    return _svg(parts)


def _frame(
    x_low: float | None, x_high: float | None, y_low: float, y_high: float, x_label: str
) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [f'<path class="axis" d="M{_LEFT},{_TOP}V{bottom}H{right}"/>']
    for share in (0.0, 0.5, 1.0):
        value = y_low + share * (y_high - y_low)
        y = _y(value, y_low, y_high)
        parts.append(f'<path class="grid" d="M{_LEFT},{y:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    if x_low is not None and x_high is not None:
        y = _HEIGHT - 8
        parts.append(f'<text x="{_LEFT}" y="{y}">{x_low:g}</text>')
        parts.append(f'<text x="{right}" y="{y}" text-anchor="end">{x_label} {x_high:g}</text>')
    return "".join(parts)


def _svg(parts: Sequence[str]) -> Markup:
    return Markup(f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">' + "".join(parts) + "</svg>")


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - margin, high + margin


def _x(value: float, low: float, high: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((value - low) / (high - low) if high > low else 0.5)


def _y(value: float, low: float, high: float) -> float:
    inner = _HEIGHT - _TOP - _BOTTOM
    return _TOP + inner * (1 - (value - low) / (high - low))
