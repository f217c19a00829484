"""The report: one self-contained HTML page that compares models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from raypo.evaluation.charts import Bars, bar_chart, line_chart
from raypo.evaluation.table import COLUMNS, table_rows
from raypo.runs import write_text

_CURVES = (
    ("loss", "Loss"),
    ("rewards/margin", "Reward margin"),
    ("rewards/accuracy", "Reward accuracy"),
    ("gamma", "Margin gamma"),
    ("validation/HitRatio@1", "Validation HitRatio@1"),
)
_GREY = 6  # the page's last colour
_QUINTILES = ("least popular", "2nd", "3rd", "4th", "most popular")


@dataclass(frozen=True)
class ReportRun:
    """A model in the report.

    Attributes:
        name: as the table shows it.
        metrics: content of its `metrics.json`.
        predictions: its `predictions.parquet`, or None.
        training: lines of its `metrics.jsonl`; empty for models that were not trained here.
    """

    name: str
    metrics: dict[str, Any]
    predictions: pd.DataFrame | None
    training: list[dict[str, Any]]


def write_report(
    output: Path,
    title: str,
    runs: Sequence[ReportRun],
    titles: Sequence[str],
    popularity: np.ndarray,
    examples: int = 10,
    audit: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page, whole or not at all.

    Args:
        output: the HTML file.
        title: its heading.
        runs: models in the table's order.
        titles: title of item i at position i.
        popularity: occurrences of each item in the training sequences.
        examples: test users shown with their history, candidates and every model's answer.
        audit: of the data set, as `dataset.json` holds it.
    """
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        resources.files(__package__).joinpath("report_template.html.j2").read_text("utf-8")
    )
    answered = [run for run in runs if run.predictions is not None]
    page = template.render(
        title=title,
        columns=COLUMNS,
        rows=table_rows([(run.name, run.metrics) for run in runs]),
        training=_training_curves(runs),
        popularity=_popularity_charts(answered, popularity),
        examples=_examples(answered, titles, examples),
        audit=audit,
        generated=max((run.metrics.get("generate", {}).get("n", 0) for run in runs), default=0),
        users=len(answered[0].predictions) if answered else 0,  # type: ignore[arg-type]
    )
    write_text(output, page)
    return output


def _training_curves(runs: Sequence[ReportRun]) -> list[tuple[str, list[tuple[str, Markup]]]]:
    """Per trained model its charts, (heading, chart)."""
    trained = []
    for run in runs:
        charts = []
        for key, heading in _CURVES:
            points = [(line["step"], line[key]) for line in run.training if key in line]
            if points:
                charts.append((heading, line_chart([(heading, points)])))
        if charts:
            trained.append((run.name, charts))
    return trained


def _popularity_charts(
    runs: Sequence[ReportRun], popularity: np.ndarray
) -> list[tuple[str, Markup]]:
    """Per way of answering: what share of recommendations falls into each popularity quintile."""
    quintile = popularity_quintiles(popularity)
    charts = []
    for way, pick in (("likelihood", _ranked_first), ("generate", _generated)):
        series = []
        for colour, run in enumerate(runs):  # a model keeps its colour from chart to chart
            if way in run.metrics and run.predictions is not None:
                series.append(Bars(run.name, _shares(quintile[pick(run.predictions)]), colour))
        if series:
            targets = runs[0].predictions["target"].to_numpy()  # type: ignore[index]
            series.append(Bars("what users chose", _shares(quintile[targets]), _GREY))
            charts.append((way, _with_legend(series)))
    return charts


def _with_legend(series: Sequence[Bars]) -> Markup:
    keys = Markup("").join(
        Markup('<span class="key"><i class="c{}"></i>{}</span>').format(bars.colour, bars.name)
        for bars in series
    )
    return bar_chart(_QUINTILES, series) + Markup('<div class="legend">{}</div>').format(keys)


def popularity_quintiles(popularity: np.ndarray) -> np.ndarray:
    """Quintile 0 (least popular) to 4 of each item, by rank; ties by item id."""
    order = np.argsort(popularity, kind="stable")
    quintile = np.empty(len(popularity), dtype=np.int64)
    quintile[order] = np.arange(len(popularity)) * 5 // len(popularity)
    return quintile


def _shares(quintiles: np.ndarray) -> list[float]:
    counts = np.bincount(quintiles, minlength=5)
    shares: list[float] = (counts / max(1, counts.sum())).tolist()
    return shares


def _ranked_first(predictions: pd.DataFrame) -> np.ndarray:
    candidates = np.stack(predictions["candidates"].to_list())
    best = np.stack(predictions["logps"].to_list()).argmax(axis=1)
    first: np.ndarray = candidates[np.arange(len(best)), best]
    return first


def _generated(predictions: pd.DataFrame) -> np.ndarray:
    picked: np.ndarray = predictions["answer_item"].dropna().astype("int64").to_numpy()
    return picked


def _examples(runs: Sequence[ReportRun], titles: Sequence[str], count: int) -> list[dict[str, Any]]:
    if not runs or runs[0].predictions is None:
        return []
    first = runs[0].predictions
    shown = []
    for place in range(min(count, len(first))):
        row = first.iloc[place]
        answers = [answer for run in runs for answer in _answers(run, place, titles)]
        shown.append(
            {
                "user": int(row["user_id"]),
                "history": [titles[item] for item in row["history"]],
                "candidates": [(titles[item], item == row["target"]) for item in row["candidates"]],
                "target": titles[row["target"]],
                "answers": answers,
            }
        )
    return shown


def _answers(run: ReportRun, place: int, titles: Sequence[str]) -> list[tuple[str, str, bool]]:
    """(model and way, what it said, whether that was right), for each way it answers."""
    assert run.predictions is not None
    row = run.predictions.iloc[place]
    answers = []
    if pd.notna(row["answer"]) or pd.notna(row["error"]):
        said = row["answer"] if pd.isna(row["error"]) else f"failed: {row['error']}"
        right = bool(pd.notna(row["answer_item"]) and row["answer_item"] == row["target"])
        answers.append((f"{run.name}, generated", said, right))
    if "likelihood" in run.metrics:
        item = int(row["candidates"][int(np.argmax(row["logps"]))])
        answers.append((f"{run.name}, ranked first", titles[item], bool(item == row["target"])))
    return answers
