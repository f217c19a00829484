"""The report's charts. A model has the same colour in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from raypo.evaluation.breakdowns import QUINTILES
from raypo.evaluation.catalogue_metrics import popularity_quintiles
from raypo.evaluation.ranking import recommended
from raypo.evaluation.report.charts import Axis, Mark, axis_over, bar_chart, line_chart
from raypo.evaluation.report.palette import REFERENCE, css_class
from raypo.evaluation.report.runs import ReportRun

MODES = ("likelihood", "generate", "constrained")
_CURVES = (
    ("loss", "Loss"),
    ("rewards/margin", "Reward margin"),
    ("rewards/accuracy", "Reward accuracy"),
    ("gamma", "Margin gamma"),
    ("validation/HitRatio@1", "Validation HitRatio@1"),
)
_UNIT = Axis(low=0.0, high=1.0, step=0.25)


@dataclass(frozen=True)
class Figure:
    """A chart with its heading.

    Attributes:
        heading: what the chart shows.
        chart: SVG.
        legend: marks that the legend names; empty for no legend.
        note: below the heading; may be empty.
    """

    heading: str
    chart: Markup
    legend: tuple[Mark, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class TrainingFigures:
    """One model's training curves.

    Attributes:
        model: name and colour.
        figures: a curve each.
    """

    model: Mark
    figures: list[Figure]


def model_mark(index: int, run: ReportRun) -> Mark:
    """Name and colour of the model at position `index` of the leaderboard."""
    return Mark(run.name, css_class(index))


def breakdown_figures(runs: Sequence[ReportRun]) -> list[Figure]:
    """HitRatio@1 by the target's popularity and occurrences, and the history's length, per mode."""
    figures = []
    for mode in MODES:
        measured = [
            (model_mark(index, run), run.metrics[mode]["breakdowns"])
            for index, run in enumerate(runs)
            if "breakdowns" in run.metrics.get(mode, {})
        ]
        if measured:
            in_all = set.intersection(*(set(parts) for _, parts in measured))
            figures += [_breakdown(mode, by, measured) for by in measured[0][1] if by in in_all]
    return figures


def _breakdown(mode: str, by: str, measured: Sequence[tuple[Mark, dict[str, Any]]]) -> Figure:
    groups = measured[0][1][by]
    series = [(mark, [part["HitRatio@1"] for part in parts[by]]) for mark, parts in measured]
    rows = ", ".join(f"{part['group']}: {part['n']}" for part in groups)
    return Figure(
        f"HitRatio@1 ({mode}) by {by}",
        bar_chart([part["group"] for part in groups], series),
        tuple(mark for mark, _ in series),
        f"test rows ({rows})",
    )


def popularity_figures(runs: Sequence[ReportRun], popularity: np.ndarray) -> list[Figure]:
    """Fraction of recommendations in each popularity quintile, per mode.

    Args:
        runs: models in the order of the leaderboard.
        popularity: occurrences of each item in the training sequences.
    """
    quintile = popularity_quintiles(popularity)
    figures = []
    for mode in MODES:
        series = []
        targets = None
        for index, run in enumerate(runs):
            if mode in run.metrics and run.predictions is not None:
                items = recommended(run.predictions, mode, run.length_normalised)
                series.append((model_mark(index, run), _fractions(quintile[items])))
                targets = run.predictions["target"].to_numpy()
        if targets is not None:
            chosen = (Mark("what users chose", REFERENCE), _fractions(quintile[targets]))
            series.append(chosen)
            heading = f"Fraction of recommendations ({mode})"
            marks = tuple(mark for mark, _ in series)
            figures.append(Figure(heading, bar_chart(QUINTILES, series), marks))
    return figures


def _fractions(quintiles: np.ndarray) -> list[float]:
    counts = np.bincount(quintiles, minlength=len(QUINTILES))
    fractions: list[float] = (counts / max(1, counts.sum())).tolist()
    return fractions


def calibration_figures(runs: Sequence[ReportRun]) -> list[Figure]:
    """Each model's reliability curve."""
    figures = []
    for index, run in enumerate(runs):
        metrics = run.metrics.get("likelihood", {})
        bins = metrics.get("calibration")
        if bins:
            perfect = (Mark("perfect calibration", REFERENCE), [(0.0, 0.0), (1.0, 1.0)])
            curve = [(confidence, ratio) for confidence, ratio, _ in bins]
            mark = model_mark(index, run)
            x_axis = Axis(low=0.0, high=1.0, step=0.25, name="confidence")
            figures.append(
                Figure(
                    run.name,
                    line_chart([perfect, (mark, curve)], x_axis, _UNIT),
                    (mark, perfect[0]),
                    f"expected calibration error {metrics['CalibrationError']:.3f}",
                )
            )
    return figures


def training_figures(runs: Sequence[ReportRun]) -> list[TrainingFigures]:
    """Training curves of each model that was trained here."""
    trained = []
    for index, run in enumerate(runs):
        mark = model_mark(index, run)
        figures = [
            Figure(heading, _curve(mark, points))
            for key, heading in _CURVES
            if (points := [(line["step"], line[key]) for line in run.training if key in line])
        ]
        if figures:
            trained.append(TrainingFigures(mark, figures))
    return trained


def _curve(mark: Mark, points: Sequence[tuple[float, float]]) -> Markup:
    x_axis = axis_over([0, *(step for step, _ in points)], "step", min_step=1)
    return line_chart([(mark, points)], x_axis, axis_over([value for _, value in points]))
