"""Rankings of the whole catalogue in the report, beside those of sampled candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raypo.errors import InputError
from raypo.evaluation.catalogue.compared import OrderAgreement, order_agreement
from raypo.evaluation.catalogue.metrics import CUTOFFS, LIST, target_positions
from raypo.evaluation.catalogue.ranked import read_ranked
from raypo.evaluation.metrics import hit_at, ndcg_at
from raypo.evaluation.ranking import rank_candidates
from raypo.evaluation.report.comparisons import NUM_BOOTSTRAP
from raypo.evaluation.report.runs import ReportRun
from raypo.evaluation.significance import Comparison, compare
from raypo.io.files import read_json

_ACCURACY = (*(f"HitRatio@{k}" for k in CUTOFFS), f"NDCG@{LIST}", "MRR", "Retrieved")
_LISTS = tuple(
    f"{name}@{LIST}"
    for name in (
        "PopularityBias", "TailPercentage", "Novelty", "Serendipity", "IntraListDiversity",
        "Coverage", "Gini",
    )
)  # fmt: skip
_COMPARED = f"NDCG@{LIST}"


@dataclass(frozen=True)
class CatalogueRun:
    """A model that ranked the catalogue.

    Attributes:
        name: as tables show it; that of the same model's run on candidates, to compare the two.
        metrics: section `catalogue` of its `metrics.json`.
        ranked: its `catalogue.parquet`.
        scope: `all` or `retrieved:K`.
    """

    name: str
    metrics: dict[str, Any]
    ranked: pd.DataFrame
    scope: str


@dataclass(frozen=True)
class CatalogueSection:
    """What the page says of rankings of the catalogue.

    Attributes:
        num_rows: test rows.
        accuracy, lists: headings, and a row of cells per model after its name.
        breakdowns: group of rows, their number, and each model's HitRatio@10.
        best: the model with the highest NDCG@10, and how each other one compares with it.
        agreement: sentence on the order by sampled candidates; empty where too few models have one.
    """

    num_rows: int
    models: list[str]
    accuracy: tuple[tuple[str, ...], list[list[str]]]
    lists: tuple[tuple[str, ...], list[list[str]]]
    breakdowns: list[list[str]]
    best: str = ""
    compared: list[tuple[str, Comparison]] = field(default_factory=list)
    agreement: str = ""


def is_catalogue(folder: Path) -> bool:
    """Whether the evaluated model in a folder ranked the catalogue."""
    return "catalogue" in read_json(folder / "metrics.json")


def read_catalogue_run(name: str, folder: Path) -> CatalogueRun:
    """Read a model's ranking of the catalogue.

    Raises:
        InputError: a file is missing or malformed.
    """
    scope = read_json(folder / "evaluated.json").get("catalogue", "all")
    metrics = read_json(folder / "metrics.json")["catalogue"]
    return CatalogueRun(name, metrics, read_ranked(folder), scope)


def catalogue_section(
    runs: Sequence[CatalogueRun], sampled: Sequence[ReportRun]
) -> CatalogueSection | None:
    """The section, or None where no model ranked the catalogue.

    Raises:
        InputError: models ranked for different rows.
    """
    if not runs:
        return None
    _check_same(runs)
    best = max(runs, key=lambda run: run.metrics[_COMPARED])
    return CatalogueSection(
        num_rows=len(runs[0].ranked),
        models=[_named(run) for run in runs],
        accuracy=(_ACCURACY, [_cells(run, _ACCURACY) for run in runs]),
        lists=(_LISTS, [_cells(run, _LISTS) for run in runs]),
        breakdowns=_breakdowns(runs),
        best=_named(best),
        compared=_compared(best, [run for run in runs if run is not best]),
        agreement=_sentence(order_agreement(*_both(runs, sampled))),
    )


def _named(run: CatalogueRun) -> str:
    return run.name if run.scope == "all" else f"{run.name}, {run.scope}"


def _check_same(runs: Sequence[CatalogueRun]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if run.ranked["row"].tolist() != first.ranked["row"].tolist():
            raise InputError(
                f"{first.name} and {run.name} ranked the catalogue for different rows; compare "
                "models that were evaluated on the same ones"
            )


def _cells(run: CatalogueRun, names: Sequence[str]) -> list[str]:
    cells = []
    for name in names:
        value, interval = run.metrics.get(name), run.metrics["intervals"].get(name)
        text = "" if value is None else f"{value:.3f}"
        cells.append(f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else text)
    return cells


def _breakdowns(runs: Sequence[CatalogueRun]) -> list[list[str]]:
    rows = []
    for group in runs[0].metrics["breakdowns"]:
        values = []
        for run in runs:
            own = {one["rows"]: one for one in run.metrics["breakdowns"]}.get(group["rows"])
            values.append("" if own is None else f"{own['HitRatio@10']:.3f}")
        rows.append([group["rows"], str(group["n"]), *values])
    return rows


def _compared(best: CatalogueRun, others: Sequence[CatalogueRun]) -> list[tuple[str, Comparison]]:
    if not others:
        return []
    hits = [_hits(run) for run in (best, *others)]
    users = best.ranked["user_id"].to_numpy()
    found = compare(hits[1:], hits[0], NUM_BOOTSTRAP, 0, users)
    return [(_named(run), one) for run, one in zip(others, found, strict=True)]


def _hits(run: CatalogueRun) -> np.ndarray:
    return hit_at(LIST, *target_positions(run.ranked))


def _both(
    runs: Sequence[CatalogueRun], sampled: Sequence[ReportRun]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """NDCG@10 per row of the models that have both, among candidates and in the catalogue."""
    by_name = {
        run.name: run for run in sampled if run.predictions is not None and _ranks_candidates(run)
    }
    of_candidates, of_catalogue = {}, {}
    for run in runs:
        other = by_name.get(run.name)
        if other is None or other.predictions is None:
            continue
        rows = other.predictions["row"].tolist()
        if rows != run.ranked["row"].tolist():
            continue
        ranking = rank_candidates(other.predictions, other.length_normalised)
        of_candidates[run.name] = ndcg_at(LIST, *ranking.target_ranks)
        of_catalogue[run.name] = ndcg_at(LIST, *target_positions(run.ranked))
    return of_candidates, of_catalogue


def _ranks_candidates(run: ReportRun) -> bool:
    return "likelihood" in run.metrics


def _sentence(agreement: OrderAgreement | None) -> str:
    if agreement is None:
        return ""
    return (
        f"Sampled candidates and the whole catalogue order the {agreement.num_models} models that "
        f"have both, by {_COMPARED}, with Kendall's tau {agreement.tau:.2f} [{agreement.low:.2f}, "
        f"{agreement.high:.2f}]; 1 is the same order."
    )
