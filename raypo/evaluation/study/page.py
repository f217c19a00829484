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
    METRICS,
    CellResult,
    ClaimResult,
    compare_claims,
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
        figures: of the cells' HitRatio@1 and of the claims' differences.
    """

    study: StudyConfig
    head: str
    cells: list[list[str]]
    claims: list[list[str]]
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
        _claim_table(claims) if claims else [],
        _figures(cells, claims, resampling),
    )


def as_markdown(page: StudyPage) -> str:
    """Tables and their heads; figures are on the page alone."""
    study = page.study
    parts = [f"# {study.title}"]
    if study.source:
        parts.append(f"Source: {study.source}.")
    if study.differs:
        parts.append(f"What differs: {study.differs}")
    parts += [page.head, markdown.table(page.cells[0], page.cells[1:])]
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
    papers = [metric for metric in METRICS if any(metric in cell.paper for cell in cells)]
    heading = ["cell", *METRICS, "PopularityBias"]
    heading += [f"HitRatio@1, seed {seed}" for seed in study.seeds]
    heading += [f"{metric} in the source" for metric in papers] + ["minutes a seed"]
    table = [heading]
    for cell in cells:
        if not cell.seeds:
            pooled = [_NOT_RUN] + [""] * len(METRICS)
        else:
            means = [cell.mean(metric, resampling) for metric in METRICS]
            biases = [one.popularity_bias for one in cell.seeds.values()]
            known = [bias for bias in biases if bias is not None]
            pooled = [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in means]
            pooled.append(f"{sum(known) / len(known):+.2f}" if known else "")
        by_seed = [
            f"{cell.seeds[seed].metrics[0].mean():.3f}" if seed in cell.seeds else ""
            for seed in study.seeds
        ]
        source = [f"{cell.paper[metric]:.3f}" if metric in cell.paper else "" for metric in papers]
        minutes = "" if cell.seconds is None else f"{cell.seconds / 60:.1f}"
        table.append([cell.name, *pooled, *by_seed, *source, minutes])
    return table


def _claim_table(claims: Sequence[ClaimResult]) -> list[list[str]]:
    table = [["claim", "cells", "seeds", *(f"{metric}: difference" for metric in METRICS[:2])]]
    for one in claims:
        cells = []
        for metric in METRICS[:2]:
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


def _figures(
    cells: Sequence[CellResult], claims: Sequence[ClaimResult], resampling: Resampling
) -> list[tuple[str, Markup]]:
    figures = []
    ran = [cell for cell in cells if cell.seeds]
    if ran:
        rows = [(Mark(cell.name, "c0"), *cell.mean(METRICS[0], resampling)) for cell in ran]
        figures.append(("HitRatio@1 with 95% intervals", interval_chart(rows, METRICS[0])))
    compared = [one for one in claims if one.seeds]
    if compared:
        differences = [
            (
                Mark(f"{one.claim.cell} - {one.claim.than}", "c1"),
                one.differences[METRICS[0]].difference,
                one.differences[METRICS[0]].low,
                one.differences[METRICS[0]].high,
            )
            for one in compared
        ]
        chart = interval_chart(differences, "difference of HitRatio@1", zero=True)
        figures.append(("Claims: differences with 95% intervals", chart))
    return figures
