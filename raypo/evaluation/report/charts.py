"""Charts as inline SVG: the one chart module of the report and of the page of a search.

Why not a library. Both pages are single files that work without network, follow the reader's light
or dark mode, and highlight a trial in every chart at once. plotly.js inlined adds 4.8 MB to a page
of 0.4 MB. matplotlib writes SVG, but it fixes colours when it draws (so two pictures, for light and
dark mode), has no classes or data attributes for the page's script, needs 51 ms and 15 kB for a
chart that takes 0.2 ms and 5 kB here (eight models, five groups, two CPU cores), and would become a
dependency of every report. It would save at most these 260 lines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from raypo.config import SearchRange

Value = float | str | bool | None
_WIDTH, _HEIGHT = 340, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 28
_AXIS_GAP, _AXIS_TOP, _AXIS_BOTTOM, _AXIS_HEIGHT = 100, 34, 14, 260
_MAX_DOTS = 30  # longer lines are drawn without a dot per point
_BINS = 5
_ROW_HEIGHT = 22


@dataclass(frozen=True)
class Axis:
    """A mapping from values to positions: 0 at one end of the axis, 1 at the other.

    Attributes:
        values: of an axis of categories, evenly spaced; None on an axis of numbers.
        low: the number at position 0.
        high: the number at position 1.
        log: space numbers by their logarithm.
        step: distance between ticks; None puts ticks at both ends and in the middle.
        name: written at the end of a horizontal axis.
    """

    values: tuple[Value, ...] | None = None
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    step: float | None = None
    name: str = ""

    def position(self, value: Value) -> float:
        """Position of `value`, from 0 to 1."""
        if self.values is not None:
            return (self.values.index(value) + 0.5) / len(self.values)
        assert isinstance(value, int | float)
        low, high, scaled = (self._scaled(number) for number in (self.low, self.high, value))
        return (scaled - low) / (high - low) if high > low else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Positions and labels of the ticks."""
        if self.values is not None:
            return [(self.position(value), _label(value)) for value in self.values]
        if self.step is not None:
            count = round((self.high - self.low) / self.step)
            numbers = [round(self.low + index * self.step, 9) for index in range(count + 1)]
            return [(self.position(number), _label(number, digits=6)) for number in numbers]
        low, high = self._scaled(self.low), self._scaled(self.high)
        return [
            (position, _label(10**number if self.log else number))
            for position, number in ((0.0, low), (0.5, (low + high) / 2), (1.0, high))
        ]

    def _scaled(self, number: float) -> float:
        return math.log10(number) if self.log else float(number)


def axis_of(choice: tuple[Value, ...] | SearchRange, name: str = "") -> Axis:
    """The axis of a searched setting; listed numbers are sorted."""
    if isinstance(choice, SearchRange):
        return Axis(low=choice.low, high=choice.high, log=choice.log, name=name)
    numbers = [value for value in choice if isinstance(value, int | float)]
    values = tuple(sorted(numbers)) if len(numbers) == len(choice) else tuple(choice)
    return Axis(values, name=name)


def axis_over(numbers: Sequence[float], name: str = "", min_step: float = 0.0) -> Axis:
    """An axis that covers `numbers`, with round numbers at its ends.

    Args:
        numbers: at least one.
        name: as in `Axis`.
        min_step: smallest distance between ticks, such as 1 for counts.
    """
    low, high = min(numbers), max(numbers)
    extent = (high - low) or abs(high) or 0.1
    power = 10.0 ** math.floor(math.log10(extent / 4))
    step = max(min_step, next(power * n for n in (1, 2, 5, 10) if power * n >= extent / 4))
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return Axis(low=low, high=max(high, low + step), step=step, name=name)


@dataclass(frozen=True)
class Mark:
    """The model or trial that a line, a dot or a series of bars represents.

    Attributes:
        name: shown when the reader points at it; empty for none.
        css: classes, which decide the colour.
        trial: number of the trial; None for models.
        intensity: of a trial's colour, from 0 (worst score) to 1 (best).
    """

    name: str
    css: str
    trial: int | None = None
    intensity: float = 0.0

    @property
    def attributes(self) -> str:
        """Attributes of its SVG element."""
        if self.trial is None:
            return f'class="{self.css}"'
        style = f"--intensity:{self.intensity:.2f}"
        return f'class="{self.css}" data-trial="{self.trial}" style="{style}"'

    @property
    def title(self) -> str:
        """Its SVG tooltip."""
        return f"<title>{escape(self.name)}</title>" if self.name else ""


def line_chart(
    lines: Sequence[tuple[Mark, Sequence[tuple[float, float]]]], x_axis: Axis, y_axis: Axis
) -> Markup:
    """A line per mark through its (x, y) pairs; later lines are drawn on top."""
    parts = [_frame(x_axis, y_axis)]
    for mark, pairs in lines:
        points = [(_x(x_axis.position(x)), _y(y_axis.position(y))) for x, y in pairs]
        dots = "".join(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in points)
        parts.append(_line(mark, points, dots if len(points) <= _MAX_DOTS else ""))
    return _svg(parts)


def bar_chart(groups: Sequence[str], series: Sequence[tuple[Mark, Sequence[float]]]) -> Markup:
    """Grouped bars from 0: a bar per mark in each group, in the order of `series`."""
    largest = max((max(heights) for _, heights in series), default=0.0)
    y_axis = axis_over([0.0, largest or 1.0])
    parts = [_frame(Axis(tuple(groups)), y_axis)]
    slot = (_WIDTH - _LEFT - _RIGHT) / len(groups)
    width = slot * 0.84 / max(1, len(series))
    for index, (mark, heights) in enumerate(series):
        parts.append(f"<g {mark.attributes}>")
        for group, height in enumerate(heights):
            x, y = _LEFT + slot * (group + 0.08) + width * index, _y(y_axis.position(height))
            parts.append(
                f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{width * 0.9:.1f}" '
                f'height="{_y(0) - y:.1f}"><title>{escape(mark.name)}: {height:.3f}</title></rect>'
            )
        parts.append("</g>")
    return _svg(parts)


def scatter_chart(dots: Sequence[tuple[Mark, Value, float]], x_axis: Axis, y_axis: Axis) -> Markup:
    """A dot per mark, and a line through the means of y.

    A mean is over the dots of one value, or of one fifth of a range of numbers.
    """
    groups: dict[int, list[tuple[float, float]]] = {}
    for _, x, y in dots:
        point = (x_axis.position(x), y_axis.position(y))
        groups.setdefault(_bin(x_axis, x), []).append(point)
    means = [
        (_x(sum(x for x, _ in group) / len(group)), _y(sum(y for _, y in group) / len(group)))
        for _, group in sorted(groups.items())
    ]
    parts = [_frame(x_axis, y_axis), f'<polyline class="mean" points="{_points(means)}"/>']
    for mark, value, score in dots:
        x, y = _x(x_axis.position(value)), _y(y_axis.position(score))
        parts.append(f'<circle {mark.attributes} cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
    return _svg(parts)


def interval_chart(
    rows: Sequence[tuple[Mark, float, float, float]], name: str, zero: bool = False
) -> Markup:
    """A dot with its interval for each mark, one below the other.

    Args:
        rows: marks with value, low and high end.
        name: of the values.
        zero: whether the axis has 0 on it, as differences need.
    """
    numbers = [number for _, *values in rows for number in values]
    axis = axis_over([*numbers, 0.0] if zero else numbers, name)
    left, right, width = 250, 20, 2 * _WIDTH
    bottom = _TOP + _ROW_HEIGHT * len(rows)

    def x(value: float) -> float:
        return left + (width - left - right) * axis.position(value)

    parts = []
    for position, label in axis.ticks():
        at = left + (width - left - right) * position
        parts.append(f'<path class="grid" d="M{at:.1f},{_TOP}V{bottom}"/>')
        parts.append(_text(at, bottom + 14, "middle", label))
    if zero:
        parts.append(f'<path class="axis" d="M{x(0.0):.1f},{_TOP}V{bottom}"/>')
    for place, (mark, value, low, high) in enumerate(rows):
        y = _TOP + _ROW_HEIGHT * (place + 0.5)
        parts.append(_text(left - 10, y + 4, "end", mark.name))
        title = f"<title>{escape(mark.name)}: {value:.3f} [{low:.3f}, {high:.3f}]</title>"
        parts.append(
            f'<g {mark.attributes}><path class="line" d="M{x(low):.1f},{y:.1f}H{x(high):.1f}"/>'
            f'<circle class="dot" cx="{x(value):.1f}" cy="{y:.1f}" r="3.5">{title}</circle></g>'
        )
    parts.append(_text(width - right, bottom + 28, "end", name, "name"))
    return _svg(parts, width, bottom + 32)


def parallel_coordinates(
    axes: Sequence[Axis], lines: Sequence[tuple[Mark, Sequence[Value]]]
) -> Markup:
    """A vertical axis per setting, and a line per mark; later lines are drawn on top."""
    bottom = _AXIS_HEIGHT - _AXIS_BOTTOM
    xs = [_AXIS_GAP * (index + 0.5) + 8 for index in range(len(axes))]

    def y(position: float) -> float:
        return bottom - position * (bottom - _AXIS_TOP)

    parts = []
    for mark, values in lines:
        crossings = zip(xs, axes, values, strict=True)
        parts.append(_line(mark, [(x, y(axis.position(value))) for x, axis, value in crossings]))
    for x, axis in zip(xs, axes, strict=True):
        parts.append(f'<path class="axis" d="M{x},{_AXIS_TOP}V{bottom}"/>')
        parts.append(_text(x, 16, "middle", axis.name, "name"))
        for position, label in axis.ticks():
            parts.append(_text(x - 5, y(position) + 3.5, "end", label))
    return _svg(parts, _AXIS_GAP * len(axes), _AXIS_HEIGHT)


def _line(mark: Mark, points: Sequence[tuple[float, float]], dots: str = "") -> str:
    """A line, under a wide invisible one that is easier to point at."""
    path = _points(points)
    return (
        f'<g {mark.attributes}>{mark.title}<polyline class="hit-area" points="{path}"/>'
        f'<polyline class="line" points="{path}"/>{dots}</g>'
    )


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _bin(axis: Axis, value: Value) -> int:
    if axis.values is not None:
        return axis.values.index(value)
    return min(_BINS - 1, int(axis.position(value) * _BINS))


def _frame(x_axis: Axis, y_axis: Axis) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [f'<path class="axis" d="M{_LEFT},{_TOP}V{bottom}H{right}"/>']
    for position, label in y_axis.ticks():
        y = _y(position)
        parts.append(f'<path class="grid" d="M{_LEFT},{y:.1f}H{right}"/>')
        parts.append(_text(_LEFT - 5, y + 4, "end", label))
    for position, label in x_axis.ticks():
        anchor = "middle" if 0 < position < 1 else ("start" if position == 0 else "end")
        parts.append(_text(_x(position), bottom + 12, anchor, label))
    if x_axis.name:
        parts.append(_text(right, _HEIGHT - 4, "end", x_axis.name, "name"))
    return "".join(parts)


def _text(x: float, y: float, anchor: str, text: str, css: str = "tick") -> str:
    return (
        f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _label(value: Value, digits: int = 3) -> str:
    """A tick's label: thousands in full, smaller numbers to so many digits."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
    return str(value)


def _x(position: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * position


def _y(position: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - position)


def _svg(parts: Sequence[str], width: int = _WIDTH, height: int = _HEIGHT) -> Markup:
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img">' + "".join(parts) + "</svg>")
