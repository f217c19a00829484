"""Fused models in the report: their weights, and what a language model adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raypo.evaluation.report.charts import Mark
from raypo.evaluation.report.figures import model_mark
from raypo.evaluation.report.runs import ReportRun


@dataclass(frozen=True)
class FusionSummary:
    """A fused model.

    Attributes:
        model: name and colour.
        sentence: what its language models add; empty where it has none.
        weights: of each model, with its standard error.
        slices: part of the rows, their number, and the differences of HitRatio@1 and NDCG@5.
    """

    model: Mark
    sentence: str
    weights: list[tuple[str, str]]
    slices: list[tuple[str, int, str, str]]


def fusion_summaries(runs: Sequence[ReportRun]) -> list[FusionSummary]:
    """A summary of each fused model among the runs."""
    return [
        FusionSummary(
            model_mark(index, run),
            str(run.fusion["sentence"]) if run.fusion.get("added") else "",
            [
                (name, f"{weight:.2f} ± {run.fusion['standard_errors'][name]:.2f}")
                for name, weight in run.fusion["weights"].items()
            ],
            _slices(run.fusion.get("added") or {}),
        )
        for index, run in enumerate(runs)
        if run.fusion
    ]


def _slices(added: dict[str, Any]) -> list[tuple[str, int, str, str]]:
    rows = []
    for name, part in added.get("slices", {}).items():
        compared = part["added"]
        cells = ["too few rows", ""]
        if compared is not None:
            cells = [_difference(compared[metric]) for metric in ("HitRatio@1", "NDCG@5")]
        rows.append((name, int(part["n"]), cells[0], cells[1]))
    return rows


def _difference(one: dict[str, float]) -> str:
    interval = f"[{one['low']:+.3f}, {one['high']:+.3f}]"
    return f"{one['difference']:+.3f} {interval}, p = {one['p_value']:.2g}"
