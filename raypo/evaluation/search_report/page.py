"""The page of a search: which settings do well, and which only seem to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from raypo.config import TuneConfig
from raypo.evaluation.report.figures import Figure
from raypo.evaluation.report.templates import asset, render
from raypo.evaluation.search_report.figures import (
    curve_figures,
    marked_trials,
    parallel_figure,
    sensitivity_figures,
)
from raypo.evaluation.search_report.trials import (
    Collapse,
    Trial,
    best_trial,
    find_collapse,
    format_value,
    short_names,
    standard_error,
)
from raypo.io.files import write_text


@dataclass(frozen=True)
class BestTrial:
    """The trial with the highest score.

    Attributes:
        number: of the trial.
        settings: in words.
        score: its best HitRatio@1.
        step: of that validation.
        standard_error: of the score over the validation rows.
    """

    number: int
    settings: str
    score: float
    step: int
    standard_error: float


@dataclass(frozen=True)
class CollapsedTrial:
    """A trial whose HitRatio@1 fell while its loss did.

    Attributes:
        number: of the trial.
        settings: in words.
        collapse: its best and its last validation.
        figures: its curves.
    """

    number: int
    settings: str
    collapse: Collapse
    figures: list[Figure]


@dataclass(frozen=True)
class TrialRow:
    """A row of the table of trials.

    Attributes:
        number: of the trial.
        settings: their values, in the order of the search space.
        results: best HitRatio@1, its step, steps, last HitRatio@1, last loss; may be empty.
        status: and whether it collapsed.
        best: whether it is the best trial.
        collapsed: whether it collapsed.
    """

    number: int
    settings: list[str]
    results: list[str]
    status: str
    best: bool
    collapsed: bool


@dataclass(frozen=True)
class SearchPage:
    """Everything that `search.html.j2` shows.

    Attributes:
        config: of the search.
        keys: dotted names of the searched settings.
        names: their short names.
        counts: of trials by status, in words.
        best: None before the first score.
        collapses: collapsed trials.
        parallel: parallel coordinates; None before the first score.
        sensitivities: score by setting.
        curves: of all trials.
        table: trials, the best first.
        failures: number and error of failed trials.
    """

    config: TuneConfig
    keys: list[str]
    names: list[str]
    counts: str
    best: BestTrial | None
    collapses: list[CollapsedTrial]
    parallel: Markup | None
    sensitivities: list[Figure]
    curves: list[Figure]
    table: list[TrialRow]
    failures: list[tuple[int, str | None]]


def write_search_report(output: Path, config: TuneConfig, trials: Sequence[Trial]) -> Path:
    """Write the page atomically.

    Args:
        output: the HTML file.
        config: of the search.
        trials: in order, with their metrics; running ones too.
    """
    rows = config.align.validation.max_rows
    best = best_trial(trials)
    scored = [trial for trial in trials if trial.score is not None]
    marked = marked_trials(scored, best) if scored else []
    page = SearchPage(
        config=config,
        keys=list(config.space),
        names=short_names(list(config.space)),
        counts=_counts(trials),
        best=None if best is None else _best(best, rows),
        collapses=_collapses(scored, rows),
        parallel=parallel_figure(marked, config) if marked else None,
        sensitivities=sensitivity_figures(marked, config) if marked else [],
        curves=curve_figures(marked) if marked else [],
        table=_table(trials, best, config),
        failures=[(trial.number, trial.error) for trial in trials if trial.status == "failed"],
    )
    style = asset("report/report.css") + asset("search_report/search.css")
    script = asset("search_report/search.js")
    write_text(output, render("search_report/search.html.j2", style, script, page))
    return output


def _in_words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {format_value(value)}" for key, value in settings.items())


def _counts(trials: Sequence[Trial]) -> str:
    """'8 trials: 5 finished, 3 stopped'."""
    kinds = ("finished", "stopped", "failed", "running")
    numbers = [(sum(trial.status == kind for trial in trials), kind) for kind in kinds]
    text = ", ".join(f"{number} {kind}" for number, kind in numbers if number)
    return f"{len(trials)} trials" + (f": {text}" if text else "")


def _best(trial: Trial, rows: int) -> BestTrial:
    assert trial.best is not None
    score = trial.best.hit_ratio
    error = standard_error(score, rows)
    return BestTrial(trial.number, _in_words(trial.settings), score, trial.best.step, error)


def _table(trials: Sequence[Trial], best: Trial | None, config: TuneConfig) -> list[TrialRow]:
    """A row per trial, the best first."""
    rows = []
    for trial in sorted(trials, key=lambda trial: (-(trial.score or -1.0), trial.number)):
        collapsed = find_collapse(trial.points, config.align.validation.max_rows) is not None
        rows.append(
            TrialRow(
                number=trial.number,
                settings=[format_value(trial.settings[key]) for key in config.space],
                results=_results(trial),
                status=trial.status + (", collapsed" if collapsed else ""),
                best=best is not None and trial.number == best.number,
                collapsed=collapsed,
            )
        )
    return rows


def _results(trial: Trial) -> list[str]:
    last = trial.points[-1] if trial.points else None
    return [
        "" if trial.best is None else f"{trial.best.hit_ratio:.3f}",
        "" if trial.best is None else str(trial.best.step),
        str(trial.metrics[-1]["step"]) if trial.metrics else "",
        "" if last is None else f"{last.hit_ratio:.3f}",
        "" if last is None else f"{last.loss:.3f}",
    ]


def _collapses(trials: Sequence[Trial], rows: int) -> list[CollapsedTrial]:
    """Trials whose HitRatio@1 fell while their loss did, with both curves."""
    return [
        CollapsedTrial(
            trial.number,
            _in_words(trial.settings),
            collapse,
            curve_figures(marked_trials([trial], None)),
        )
        for trial in trials
        if (collapse := find_collapse(trial.points, rows)) is not None
    ]
