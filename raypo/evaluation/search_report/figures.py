"""Charts of a search: every trial has the same mark in all of them."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from raypo.config import TuneConfig
from raypo.evaluation.report.charts import (
    Axis,
    Mark,
    axis_of,
    axis_over,
    line_chart,
    parallel_coordinates,
    scatter_chart,
)
from raypo.evaluation.report.figures import Figure
from raypo.evaluation.search_report.trials import Trial, short_names

_CURVES = (("Validation HitRatio@1", "hit_ratio"), ("Loss", "loss"))
MarkedTrials = Sequence[tuple[Mark, Trial]]


def marked_trials(trials: Sequence[Trial], best: Trial | None) -> MarkedTrials:
    """Trials with their marks: dashed or hollow unless finished, and the best one drawn last."""
    scores = [trial.score or 0.0 for trial in trials]
    low, high = min(scores), max(scores)
    marked = []
    for trial, score in zip(trials, scores, strict=True):
        is_best = best is not None and trial.number == best.number
        css = "trial" + " best" * is_best + " unfinished" * (trial.status != "finished")
        intensity = (score - low) / (high - low) if high > low else 1.0
        marked.append((Mark("", css, trial.number, intensity), trial, is_best))
    marked.sort(key=lambda one: (one[2], one[0].intensity))
    return [(mark, trial) for mark, trial, _ in marked]


def parallel_figure(marked: MarkedTrials, config: TuneConfig) -> Markup:
    """Parallel coordinates of all settings and the score."""
    keys = list(config.space)
    names = short_names(keys)
    axes = [axis_of(config.space[key], name) for key, name in zip(keys, names, strict=True)]
    lines = [
        (mark, [*(trial.settings[key] for key in keys), trial.score]) for mark, trial in marked
    ]
    return parallel_coordinates([*axes, _score_axis(marked, "HitRatio@1")], lines)


def sensitivity_figures(marked: MarkedTrials, config: TuneConfig) -> list[Figure]:
    """Per setting, the score of every trial by the setting's value."""
    keys = list(config.space)
    y_axis = _score_axis(marked)
    return [
        Figure(
            key,
            scatter_chart(
                [(mark, trial.settings[key], trial.score or 0.0) for mark, trial in marked],
                axis_of(config.space[key], name),
                y_axis,
            ),
        )
        for key, name in zip(keys, short_names(keys), strict=True)
    ]


def curve_figures(marked: MarkedTrials) -> list[Figure]:
    """Validation HitRatio@1 and training loss by step, a line per trial."""
    steps = [point.step for _, trial in marked for point in trial.points]
    x_axis = axis_over([0, *steps], "step", min_step=1)
    return [Figure(heading, _curves(marked, x_axis, attribute)) for heading, attribute in _CURVES]


def _curves(marked: MarkedTrials, x_axis: Axis, attribute: str) -> Markup:
    lines = [
        (mark, [(float(point.step), float(getattr(point, attribute))) for point in trial.points])
        for mark, trial in marked
    ]
    return line_chart(lines, x_axis, axis_over([y for _, pairs in lines for _, y in pairs]))


def _score_axis(marked: MarkedTrials, name: str = "") -> Axis:
    return axis_over([trial.score or 0.0 for _, trial in marked], name)
