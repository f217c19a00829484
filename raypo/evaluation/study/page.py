"""The tables of a study as Markdown, and as one HTML page with its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from raypo.config.study import StudyConfig
from raypo.evaluation.intervals import Resampling
from raypo.evaluation.report.charts import Mark, interval_chart
from raypo.evaluation.report.templates import asset, render
from raypo.evaluation.study.record import StudyRecord
from raypo.evaluation.study.results import (
    CellResult,
    ClaimResult,
    compare_claims,
    metrics_of,
    read_study,
)
from raypo.io import markdown
from raypo.io.files import write_text

_NOT_RUN = "not run"


@dataclass(frozen=True)
class StudyPage:
    """What the page shows.

    Attributes:
        study: its configuration.
        head: what was run, on which rows.
        cells: heading and rows of the table of cells.
        claims: heading and rows of the table of claims.
        remarks: sentences on single cells.
        figures: of the cells' first metric and of the claims' differences.
    """

    study: StudyConfig
    head: str
    cells: list[list[str]]
    claims: list[list[str]]
    remarks: list[str]
    figures: list[tuple[str, Markup]]


def write_study(study: StudyConfig) -> list[Path]:
    """Write `study.md` and `study.html` from the cells that are there; returns both.

    Raises:
        InputError: cells were evaluated on different test rows.
    """
    page = study_page(study)
    html = render("study/study.html.j2", asset("report/report.css"), "", page)
    files = [study.output / "study.md", study.output / "study.html"]
    write_text(files[0], as_markdown(page))
    write_text(files[1], html)
    return files


def study_page(study: StudyConfig) -> StudyPage:
    """The page of a study, of what has run so far."""
    cells = read_study(study, StudyRecord.open(study))
    claims = compare_claims(study, cells)
    resampling = Resampling(study.num_bootstrap, 0)
    return StudyPage(
        study,
        _head(study, cells),
        _cell_table(study, cells, resampling),
        _claim_table(claims, metrics_of(study)[:2]) if claims else [],
        _remarks(cells, resampling),
        _figures(cells, claims, metrics_of(study)[0], resampling),
    )


def as_markdown(page: StudyPage) -> str:
    """Tables and their heads; figures are on the page alone."""
    study = page.study
    parts = [f"# {study.title}"]
    if study.source:
        parts.append(f"Source: {study.source}.")
    if study.differs:
        parts.append(f"What differs: {study.differs}")
    parts += [page.head, markdown.table(page.cells[0], page.cells[1:]), *page.remarks]
    if page.claims:
        parts += [
            "Claims, stated before anything ran:",
            markdown.table(page.claims[0], page.claims[1:]),
        ]
    return "\n\n".join(parts) + "\n"


def _head(study: StudyConfig, cells: Sequence[CellResult]) -> str:
    done = sum(len(cell.seeds) for cell in cells)
    read = [one for cell in cells for one in cell.seeds.values()]
    rows = f"{len(read[0].rows):,} test rows" if read else "no rows yet"
    if study.ranks_catalogue:
        rows += ", among the whole catalogue: recommenders and heuristics rank all of it, policies "
        rows += "what their cell's `catalogue` says, and a target that is not among that is a miss"
    return (
        f"{done} of {len(cells) * len(study.seeds)} evaluations have run (seeds "
        f"{', '.join(map(str, study.seeds))}), by likelihood, on {rows}. A row counts with its "
        "mean over the seeds; intervals and tests are over users. Claims are corrected by Holm "
        "among themselves, for each metric; one is open where its p-value is above 0.05, with the "
        "difference that these rows would have shown with a probability of 80%."
    )


def _cell_table(
    study: StudyConfig, cells: Sequence[CellResult], resampling: Resampling
) -> list[list[str]]:
    metrics = metrics_of(study)
    papers = [metric for metric in metrics if any(metric in cell.paper for cell in cells)]
    heading = ["cell", *metrics, "PopularityBias"]
    heading += [f"{metrics[0]}, seed {seed}" for seed in study.seeds]
    heading += [f"{metric} in the source" for metric in papers] + ["minutes a seed"]
    table = [heading]
    for cell in cells:
        if not cell.seeds:
            pooled = [_NOT_RUN] + [""] * len(metrics)
        else:
            means = [cell.mean(metric, resampling) for metric in metrics]
            biases = [one.popularity_bias for one in cell.seeds.values()]
            known = [bias for bias in biases if bias is not None]
            pooled = [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in means]
            pooled.append(f"{sum(known) / len(known):+.2f}" if known else "")
        by_seed = [
            f"{cell.seeds[seed].metrics[metrics[0]].mean():.3f}" if seed in cell.seeds else ""
            for seed in study.seeds
        ]
        source = [f"{cell.paper[metric]:.3f}" if metric in cell.paper else "" for metric in papers]
        minutes = "" if cell.seconds is None else f"{cell.seconds / 60:.1f}"
        table.append([cell.name, *pooled, *by_seed, *source, minutes])
    return table


def _claim_table(claims: Sequence[ClaimResult], metrics: Sequence[str]) -> list[list[str]]:
    table = [["claim", "cells", "seeds", *(f"{metric}: difference" for metric in metrics)]]
    for one in claims:
        cells = []
        for metric in metrics:
            if not one.seeds:
                cells.append(_NOT_RUN)
                continue
            found = one.differences[metric]
            cells.append(
                f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}], p = "
                f"{one.adjusted[metric]:.3f}; {one.verdict(metric)}"
            )
        claim = one.claim
        table.append([claim.text, f"{claim.cell} - {claim.than}", str(len(one.seeds)), *cells])
    return table


def _remarks(cells: Sequence[CellResult], resampling: Resampling) -> list[str]:
    found = [(cell.name, cell.position_remark(resampling)) for cell in cells if cell.seeds]
    return [f"{name}: {remark}" for name, remark in found if remark]


def _figures(
    cells: Sequence[CellResult],
    claims: Sequence[ClaimResult],
    metric: str,
    resampling: Resampling,
) -> list[tuple[str, Markup]]:
    figures = []
    ran = [cell for cell in cells if cell.seeds]
    if ran:
        rows = [(Mark(cell.name, "c0"), *cell.mean(metric, resampling)) for cell in ran]
        figures.append((f"{metric} with 95% intervals", interval_chart(rows, metric)))
    compared = [one for one in claims if one.seeds]
    if compared:
        differences = [
            (
                Mark(f"{one.claim.cell} - {one.claim.than}", "c1"),
                one.differences[metric].difference,
                one.differences[metric].low,
                one.differences[metric].high,
            )
            for one in compared
        ]
        chart = interval_chart(differences, f"difference of {metric}", zero=True)
        figures.append(("Claims: differences with 95% intervals", chart))
    return figures
