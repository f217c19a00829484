"""The page of a search: which settings do well, which only seem to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from raypo.config import TuneConfig
from raypo.evaluation.report.page import resource
from raypo.evaluation.search_report.charts import (
    Axis,
    Mark,
    axis_of,
    axis_over,
    curves,
    parallel_coordinates,
    sensitivity,
)
from raypo.evaluation.search_report.trials import (
    Point,
    Trial,
    best_trial,
    find_collapse,
    format_value,
    short_names,
    standard_error,
)
from raypo.io.files import write_text


def write_search_report(output: Path, config: TuneConfig, trials: Sequence[Trial]) -> Path:
    """Write the page, whole or not at all.

    Args:
        output: the HTML file.
        config: of the search.
        trials: in order, with their lines; running ones too.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(resource("search.html.j2", __package__))
    rows = config.align.validation.max_rows
    best = best_trial(trials)
    scored = [trial for trial in trials if trial.score is not None]
    page = template.render(
        style=Markup(resource("report.css") + resource("search.css", __package__)),
        script=Markup(resource("search.js", __package__)),
        folder=config.output.name,
        data=config.align.data.name,
        objective=config.align.objective.label,
        config=config,
        rows=rows,
        error=None if best is None else standard_error(best.score or 0.0, rows),
        best=best,
        best_settings=_sentence(best.settings) if best is not None else "",
        counts=_counts(trials),
        keys=list(config.space),
        names=short_names(list(config.space)),
        table=_table(trials, best, config),
        collapses=_collapses(scored, rows),
        parallel=_parallel(scored, best, config) if scored else None,
        sensitivities=_sensitivities(scored, best, config) if scored else [],
        curves=_curves(scored, best) if scored else [],
        failures=[trial for trial in trials if trial.status == "failed"],
    )
    write_text(output, page)
    return output


def _sentence(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {format_value(value)}" for key, value in settings.items())


def _counts(trials: Sequence[Trial]) -> str:
    """'8 trials: 5 finished, 3 stopped'."""
    kinds = ("finished", "stopped", "failed", "running")
    numbers = [(sum(trial.status == kind for trial in trials), kind) for kind in kinds]
    text = ", ".join(f"{number} {kind}" for number, kind in numbers if number)
    return f"{len(trials)} trials" + (f": {text}" if text else "")


def _table(trials: Sequence[Trial], best: Trial | None, config: TuneConfig) -> list[dict[str, Any]]:
    """A row per trial, the best first."""
    rows = []
    for trial in sorted(trials, key=lambda trial: (-(trial.score or -1.0), trial.number)):
        collapsed = find_collapse(trial.points, config.align.validation.max_rows) is not None
        end = trial.points[-1] if trial.points else None
        rows.append(
            {
                "number": trial.number,
                "settings": [format_value(trial.settings[key]) for key in config.space],
                "score": "" if trial.score is None else f"{trial.score:.3f}",
                "best_step": "" if trial.best is None else trial.best.step,
                "steps": trial.metrics[-1]["step"] if trial.metrics else "",
                "end": "" if end is None else f"{end.hit_ratio:.3f}",
                "loss": "" if end is None else f"{end.loss:.3f}",
                "status": trial.status + (", collapsed" if collapsed else ""),
                "best": best is not None and trial.number == best.number,
                "collapsed": collapsed,
            }
        )
    return rows


def _tones(trials: Sequence[Trial]) -> dict[int, float]:
    scores = [trial.score or 0.0 for trial in trials]
    low, high = min(scores), max(scores)
    return {
        trial.number: (score - low) / (high - low) if high > low else 1.0
        for trial, score in zip(trials, scores, strict=True)
    }


def _marks(
    trials: Sequence[Trial], best: Trial | None, values: Sequence[tuple[Any, ...]]
) -> list[Mark]:
    tones = _tones(trials)
    return [
        Mark(
            trial.number,
            own,
            tones[trial.number],
            trial.status != "finished",
            best is not None and trial.number == best.number,
        )
        for trial, own in zip(trials, values, strict=True)
    ]


def _scores_axis(trials: Sequence[Trial]) -> Axis:
    return axis_over([trial.score or 0.0 for trial in trials])


def _parallel(trials: Sequence[Trial], best: Trial | None, config: TuneConfig) -> Markup:
    keys = list(config.space)
    axes = [axis_of(config.space[key]) for key in keys]
    values = [(*(trial.settings[key] for key in keys), trial.score) for trial in trials]
    return parallel_coordinates(
        [*short_names(keys), "HitRatio@1"],
        [*axes, _scores_axis(trials)],
        _marks(trials, best, values),
    )


def _sensitivities(
    trials: Sequence[Trial], best: Trial | None, config: TuneConfig
) -> list[tuple[str, Markup]]:
    """Per setting (its key, HitRatio@1 over its values)."""
    scores = _scores_axis(trials)
    names = short_names(list(config.space))
    charts = []
    for (key, choice), name in zip(config.space.items(), names, strict=True):
        values = [(trial.settings[key], trial.score) for trial in trials]
        charts.append(
            (key, sensitivity(axis_of(choice), scores, _marks(trials, best, values), name))
        )
    return charts


def _curves(trials: Sequence[Trial], best: Trial | None) -> list[tuple[str, Markup]]:
    """Validation HitRatio@1 and loss of all trials, on the same steps."""
    steps = Axis(low=0, high=max(trial.points[-1].step for trial in trials))
    return [
        (heading, _curve(trials, best, steps, attribute))
        for heading, attribute in (("Validation HitRatio@1", "hit_ratio"), ("Loss", "loss"))
    ]


def _curve(trials: Sequence[Trial], best: Trial | None, steps: Axis, attribute: str) -> Markup:
    values = [
        tuple((point.step, getattr(point, attribute)) for point in trial.points) for trial in trials
    ]
    ys = axis_over([y for pairs in values for _, y in pairs])
    return curves(steps, ys, _marks(trials, best, values))


def _collapses(trials: Sequence[Trial], rows: int) -> list[dict[str, Any]]:
    """Trials whose HitRatio@1 fell while their loss did, with both curves."""
    found = []
    for trial in trials:
        collapse = find_collapse(trial.points, rows)
        if collapse is not None:
            found.append(
                {
                    "number": trial.number,
                    "settings": _sentence(trial.settings),
                    "best": collapse.best,
                    "end": collapse.end,
                    "charts": _own_curves(trial, trial.points),
                }
            )
    return found


def _own_curves(trial: Trial, points: Sequence[Point]) -> list[tuple[str, Markup]]:
    steps = Axis(low=0, high=points[-1].step)
    return [
        (heading, _curve([trial], None, steps, attribute))
        for heading, attribute in (("Validation HitRatio@1", "hit_ratio"), ("Loss", "loss"))
    ]
