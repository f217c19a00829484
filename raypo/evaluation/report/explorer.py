"""Test users in the report's explorer: every model's ranking and answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from scipy.special import softmax

from raypo.evaluation.ranking import ranking_scores
from raypo.evaluation.report.palette import css_class
from raypo.evaluation.report.runs import ReportRun

_MODES = (
    ("generated", "answer", "answer_item"),
    ("constrained", "constrained", "constrained_item"),
)


def explorer_data(
    runs: Sequence[ReportRun], titles: Sequence[str], num_users: int
) -> dict[str, Any]:
    """The first `num_users` test rows: history, candidates, and each model's results.

    A ranking is a list of (position among the candidates, score, probability), best first. Scores
    are those of `metrics.json`: log-probs, or log-probs per token for models evaluated with
    `length_normalised`. Probabilities are a softmax over the candidates.

    Args:
        runs: models in the order of the leaderboard; those without predictions are left out.
        titles: title of item i at index i.
        num_users: at most.
    """
    shown = [(index, run) for index, run in enumerate(runs) if run.predictions is not None]
    if not shown:
        return {"titles": {}, "rows": []}
    first = shown[0][1].predictions
    assert first is not None
    first = first.head(num_users)
    models = [_models(index, run, len(first)) for index, run in shown]
    rows = [
        {
            "user": int(row["user_id"]),
            "history": [int(item) for item in row["history"]],
            "candidates": [int(item) for item in row["candidates"]],
            "target": int(row["target"]),
            "models": [results[position] for results in models],
        }
        for position, (_, row) in enumerate(first.iterrows())
    ]
    lists = (*first["history"], *first["candidates"])
    shown_items = sorted({int(item) for items in lists for item in items})
    return {"titles": {item: titles[item] for item in shown_items}, "rows": rows}


def _models(index: int, run: ReportRun, num_rows: int) -> list[dict[str, Any]]:
    """One model's results on the first rows."""
    assert run.predictions is not None
    predictions = run.predictions.head(num_rows)
    results = [
        {"name": run.name, "css": css_class(index)} | _answers(row)
        for _, row in predictions.iterrows()
    ]
    if "likelihood" in run.metrics:
        # Of all rows, as for `metrics.json`: scores are per token only if all rows have lengths.
        scores = ranking_scores(run.predictions, run.length_normalised)[:num_rows]
        for result, row_scores in zip(results, scores, strict=True):
            result["ranking"] = _ranking(row_scores)
    return results


def _answers(row: pd.Series) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for key, text, item in _MODES:
        if isinstance(row[text], str):
            correct = bool(pd.notna(row[item]) and row[item] == row["target"])
            answers[key] = {"text": row[text], "correct": correct}
    errors = [row[name] for name in ("error", "constrained_error") if isinstance(row[name], str)]
    if errors:
        answers["error"] = "; ".join(dict.fromkeys(errors))
    return answers


def _ranking(scores: np.ndarray) -> list[list[float]]:
    probabilities = softmax(scores)
    return [
        [int(position), round(float(scores[position]), 3), round(float(probabilities[position]), 4)]
        for position in np.argsort(-scores, kind="stable")
    ]


def as_script(data: dict[str, Any]) -> Markup:
    """JSON that is safe inside a script element, whatever titles contain."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
