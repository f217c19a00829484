"""Charts of a search as inline SVG; whatever belongs to a trial carries its number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from raypo.config import SearchRange
from raypo.evaluation.search_report.trials import format_value

_WIDTH, _HEIGHT = 340, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 28
_AXIS_GAP, _AXIS_TOP, _AXIS_BOTTOM = 100, 34, 14
_BINS = 5


@dataclass(frozen=True)
class Axis:
    """What values stand where: 0 at one end, 1 at the other.

    Attributes:
        values: those that stand side by side, evenly; None on an axis of numbers.
        low: the number at 0.
        high: the number at 1.
        log: whether the logarithm is even.
        step: between what is written; None writes the ends and the middle.
    """

    values: tuple[Any, ...] | None = None
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    step: float | None = None

    def place(self, value: Any) -> float:
        """Where `value` stands."""
        if self.values is not None:
            return (self.values.index(value) + 0.5) / len(self.values)
        low, high, value = (self._even(number) for number in (self.low, self.high, value))
        return float((value - low) / (high - low)) if high > low else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Places and what is written there."""
        if self.values is not None:
            return [(self.place(value), format_value(value)) for value in self.values]
        if self.step is not None:
            number = round((self.high - self.low) / self.step)
            every = [round(self.low + index * self.step, 9) for index in range(number + 1)]
            return [(self.place(value), format_value(value)) for value in every]
        low, high = self._even(self.low), self._even(self.high)
        middle = (low + high) / 2
        return [
            (share, format_value(10**value if self.log else value))
            for share, value in ((0.0, low), (0.5, middle), (1.0, high))
        ]

    def _even(self, number: float) -> float:
        return math.log10(number) if self.log else float(number)


def axis_of(choice: tuple[Any, ...] | SearchRange) -> Axis:
    """A setting's axis; listed numbers stand in their order."""
    if isinstance(choice, SearchRange):
        return Axis(low=choice.low, high=choice.high, log=choice.log)
    numbers = all(isinstance(value, int | float) for value in choice)
    return Axis(tuple(sorted(choice)) if numbers else tuple(choice))


def axis_over(numbers: Sequence[float]) -> Axis:
    """An axis that holds these numbers, with round ones at its ends."""
    low, high = min(numbers), max(numbers)
    room = (high - low) or abs(high) or 0.1
    size = 10.0 ** math.floor(math.log10(room / 4))
    step = next(size * share for share in (1, 2, 5, 10) if size * share >= room / 4)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return Axis(low=low, high=max(high, low + step), step=step)


@dataclass(frozen=True)
class Mark:
    """One trial on a chart.

    Attributes:
        trial: its number.
        values: one per axis of parallel coordinates, (x, y) of a dot, or y after y of a curve.
        tone: 0 to 1, from worst to best score.
        hollow: whether it was stopped early.
        best: whether it is the best one.
    """

    trial: int
    values: tuple[Any, ...]
    tone: float = 0.0
    hollow: bool = False
    best: bool = False

    @property
    def attributes(self) -> str:
        """Class and number, as every element of a trial has them."""
        kinds = "trial" + " best" * self.best + " hollow" * self.hollow
        return f'class="{kinds}" data-trial="{self.trial}" style="--tone:{self.tone:.2f}"'


def parallel_coordinates(names: Sequence[str], axes: Sequence[Axis], marks: list[Mark]) -> Markup:
    """An upright axis per setting, the score's last; a line per trial, the best one on top."""
    width = _AXIS_GAP * len(axes)
    height = 260
    bottom = height - _AXIS_BOTTOM
    xs = [_AXIS_GAP * (index + 0.5) + 8 for index in range(len(axes))]

    def y(share: float) -> float:
        return bottom - share * (bottom - _AXIS_TOP)

    parts = []
    for mark in sorted(marks, key=lambda mark: (mark.best, mark.tone)):
        places = zip(xs, axes, mark.values, strict=True)
        points = " ".join(f"{x:.1f},{y(axis.place(value)):.1f}" for x, axis, value in places)
        parts.append(
            f'<g {mark.attributes}><polyline class="touch" points="{points}"/>'
            f'<polyline class="path" points="{points}"/></g>'
        )
    for x, axis, name in zip(xs, axes, names, strict=True):
        parts.append(f'<path class="axis" d="M{x},{_AXIS_TOP}V{bottom}"/>')
        parts.append(_text(x, 16, "middle", name, "name"))
        for share, text in axis.ticks():
            parts.append(_text(x - 5, y(share) + 3.5, "end", text))
    return _svg(width, height, parts)


def sensitivity(axis: Axis, scores: Axis, marks: Sequence[Mark], name: str) -> Markup:
    """A dot per trial, score over a setting's value, and a line through means.

    A mean is over trials of one value, or of one fifth of a range.
    """
    parts = [_frame(axis, scores, name)]
    groups: dict[int, list[Mark]] = {}
    for mark in marks:
        groups.setdefault(_bin(axis, mark.values[0]), []).append(mark)
    means = []
    for _, group in sorted(groups.items()):
        x = sum(axis.place(mark.values[0]) for mark in group) / len(group)
        y = sum(mark.values[1] for mark in group) / len(group)
        means.append(f"{_x(x):.1f},{_y(scores.place(y)):.1f}")
    parts.append(f'<polyline class="line c0 mean" points="{" ".join(means)}"/>')
    for mark in marks:
        x, y = _x(axis.place(mark.values[0])), _y(scores.place(mark.values[1]))
        parts.append(
            f'<circle {mark.attributes} cx="{x:.1f}" cy="{y:.1f}" r="{5 if mark.best else 3.5}"/>'
        )
    return _svg(_WIDTH, _HEIGHT, parts)


def curves(steps: Axis, ys: Axis, marks: Sequence[Mark]) -> Markup:
    """A curve per trial; each mark's values are (step, y) pairs."""
    parts = [_frame(steps, ys, "step")]
    for mark in sorted(marks, key=lambda mark: (mark.best, mark.tone)):
        places = [(_x(steps.place(step)), _y(ys.place(y))) for step, y in mark.values]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6"/>' for x, y in places)
        parts.append(
            f'<g {mark.attributes}><polyline class="touch" points="{points}"/>'
            f'<polyline class="path" points="{points}"/>{dots}</g>'
        )
    return _svg(_WIDTH, _HEIGHT, parts)


def _bin(axis: Axis, value: Any) -> int:
    if axis.values is not None:
        return axis.values.index(value)
    return min(_BINS - 1, int(axis.place(value) * _BINS))


def _frame(xs: Axis, ys: Axis, name: str) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [f'<path class="axis" d="M{_LEFT},{_TOP}V{bottom}H{right}"/>']
    for share, text in ys.ticks():
        y = _y(share)
        parts.append(f'<path class="grid" d="M{_LEFT},{y:.1f}H{right}"/>')
        parts.append(_text(_LEFT - 5, y + 4, "end", text))
    for share, text in xs.ticks():
        anchor = "middle" if 0 < share < 1 else ("start" if share == 0 else "end")
        parts.append(_text(_x(share), bottom + 12, anchor, text))
    parts.append(_text(right, _HEIGHT - 4, "end", name, "name"))
    return "".join(parts)


def _text(x: float, y: float, anchor: str, text: str, kind: str = "") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _x(share: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * share


def _y(share: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)


def _svg(width: int, height: int, parts: Sequence[str]) -> Markup:
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img">' + "".join(parts) + "</svg>")
