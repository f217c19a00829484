"""The report: one self-contained HTML page that compares models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from raypo.evaluation.report.audit_scores import AuditSummary, parse_audit
from raypo.evaluation.report.catalogue import CatalogueRun, CatalogueSection, catalogue_section
from raypo.evaluation.report.charts import Mark
from raypo.evaluation.report.comparisons import best_of, check_same_rows, compare_with_best
from raypo.evaluation.report.explorer import as_script, explorer_data
from raypo.evaluation.report.figures import (
    MODES,
    Figure,
    TrainingFigures,
    breakdown_figures,
    calibration_figures,
    model_mark,
    popularity_figures,
    training_figures,
)
from raypo.evaluation.report.fusions import FusionSummary, fusion_summaries
from raypo.evaluation.report.notes import CostRow, cost_rows, remarks
from raypo.evaluation.report.runs import ReportRun
from raypo.evaluation.report.table import Column, columns_of, table_rows
from raypo.evaluation.report.templates import asset, render
from raypo.evaluation.significance import Comparison
from raypo.io.files import write_text

_NUM_USERS = 100  # in the explorer
_HIT_RATIO: Column = ("likelihood", "HitRatio@1")


@dataclass(frozen=True)
class LeaderboardRow:
    """A model or a heuristic baseline.

    Attributes:
        model: name and colour; a heuristic has no colour.
        cells: one per column.
        kind: what kind of heuristic it is; empty for models.
    """

    model: Mark
    cells: list[str]
    kind: str = ""


@dataclass(frozen=True)
class ComparisonTable:
    """Every other model compared with the best one.

    Attributes:
        mode: of the answers.
        best: the best model.
        rows: another model, and how it compares.
    """

    mode: str
    best: Mark
    rows: list[tuple[Mark, Comparison]]


@dataclass(frozen=True)
class ReportPage:
    """Everything that `report.html.j2` shows.

    Attributes:
        title: heading.
        num_rows: test rows.
        num_generated: rows with generated answers.
        columns: (mode, metric) of the leaderboard.
        leaderboard: models, then heuristic baselines.
        comparisons: per mode.
        fusions: models that are fused from others.
        remarks: sentences on single models.
        breakdowns: HitRatio@1 by popularity and by length of the history.
        popularity: of recommended items.
        calibration: of likelihoods.
        training: curves of models that were trained here.
        costs: of training and evaluation.
        audit: of the data set.
        explorer: test users, as JSON.
        catalogue: rankings of the whole catalogue; None where no model made one.
    """

    title: str
    num_rows: int
    num_generated: int
    columns: tuple[Column, ...]
    leaderboard: list[LeaderboardRow]
    comparisons: list[ComparisonTable]
    fusions: list[FusionSummary]
    remarks: list[str]
    breakdowns: list[Figure]
    popularity: list[Figure]
    calibration: list[Figure]
    training: list[TrainingFigures]
    costs: list[CostRow]
    audit: AuditSummary | None
    explorer: Markup
    catalogue: CatalogueSection | None = None


def write_report(
    output: Path,
    title: str,
    runs: Sequence[ReportRun],
    titles: Sequence[str],
    popularity: np.ndarray,
    audit: Mapping[str, Any] | None = None,
    of_catalogue: Sequence[CatalogueRun] = (),
) -> Path:
    """Write the page atomically.

    Args:
        output: the HTML file.
        title: its heading.
        runs: models in the order of the leaderboard.
        titles: title of item i at index i.
        popularity: occurrences of each item in the training sequences, [items].
        audit: of the data set, as in `dataset.json`.
        of_catalogue: models that ranked the whole catalogue.

    Raises:
        InputError: models were evaluated on different rows or candidates.
    """
    check_same_rows(runs)
    summary = None if audit is None else parse_audit(audit)
    columns = columns_of([(run.name, run.metrics) for run in runs])
    page = ReportPage(
        title=title,
        num_rows=max((len(r.predictions) for r in runs if r.predictions is not None), default=0),
        num_generated=max((run.metrics.get("generate", {}).get("n", 0) for run in runs), default=0),
        columns=columns,
        leaderboard=_model_rows(runs, columns) + _heuristic_rows(summary, columns),
        comparisons=_comparisons(runs),
        fusions=fusion_summaries(runs),
        remarks=remarks(runs),
        breakdowns=breakdown_figures(runs),
        popularity=popularity_figures(runs, popularity),
        calibration=calibration_figures(runs),
        training=training_figures(runs),
        costs=cost_rows(runs),
        audit=summary,
        explorer=as_script(explorer_data(runs, titles, _NUM_USERS)),
        catalogue=catalogue_section(of_catalogue, runs),
    )
    style, script = asset("report/report.css"), asset("report/report.js")
    write_text(output, render("report/report.html.j2", style, script, page))
    return output


def _model_rows(runs: Sequence[ReportRun], columns: Sequence[Column]) -> list[LeaderboardRow]:
    """A row per model; a dagger marks those significantly below the best by likelihood."""
    compared = compare_with_best(runs, "likelihood")
    rows = []
    for index, (_, *cells) in enumerate(table_rows([(run.name, run.metrics) for run in runs])):
        run = runs[index]
        if run.name in compared and compared[run.name].significant:
            cells[columns.index(_HIT_RATIO)] += " \N{DAGGER}"
        rows.append(LeaderboardRow(model_mark(index, run), cells))
    return rows


def _heuristic_rows(audit: AuditSummary | None, columns: Sequence[Column]) -> list[LeaderboardRow]:
    """A row per heuristic baseline of the audit, which measures HitRatio@1 alone."""
    rows = []
    for one in () if audit is None else audit.heuristics:
        score = f"{one.hit_ratio:.3f} [{one.low:.3f}, {one.high:.3f}]"
        cells = [score if column == _HIT_RATIO else "" for column in columns]
        rows.append(LeaderboardRow(Mark(one.name, ""), cells, one.kind))
    return rows


def _comparisons(runs: Sequence[ReportRun]) -> list[ComparisonTable]:
    marks = {run.name: model_mark(index, run) for index, run in enumerate(runs)}
    tables = []
    for mode in MODES:
        best = best_of(runs, mode)
        compared = compare_with_best(runs, mode)
        if compared and best is not None:
            rows = [(marks[name], one) for name, one in compared.items()]
            tables.append(ComparisonTable(mode, marks[best.name], rows))
    return tables
