"""Test users as the report's explorer shows them: every model's ranking and answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from scipy.special import softmax

from raypo.evaluation.ranking import ranking_scores
from raypo.evaluation.report.runs import ReportRun


def explorer_data(runs: Sequence[ReportRun], titles: Sequence[str], users: int) -> dict[str, Any]:
    """The first `users` test rows with history, candidates and what each model made of them.

    A model's ranking is (place among the candidates, score, share of softmax) by falling score.
    """
    if not runs or runs[0].predictions is None:
        return {"titles": {}, "rows": []}
    first = runs[0].predictions
    count = min(users, len(first))
    rows = [_row(runs, place) for place in range(count)]
    used = sorted({item for row in rows for item in (*row["history"], *row["candidates"])})
    return {"titles": {item: titles[item] for item in used}, "rows": rows}


def _row(runs: Sequence[ReportRun], place: int) -> dict[str, Any]:
    assert runs[0].predictions is not None
    row = runs[0].predictions.iloc[place]
    return {
        "user": int(row["user_id"]),
        "history": [int(item) for item in row["history"]],
        "candidates": [int(item) for item in row["candidates"]],
        "target": int(row["target"]),
        "models": [_model(run, place) for run in runs],
    }


def _model(run: ReportRun, place: int) -> dict[str, Any]:
    assert run.predictions is not None
    row = run.predictions.iloc[place]
    shown: dict[str, Any] = {"name": run.name}
    for key, text, item in (
        ("generated", "answer", "answer_item"),
        ("constrained", "constrained", "constrained_item"),
    ):
        if isinstance(row[text], str):
            right = bool(pd.notna(row[item]) and row[item] == row["target"])
            shown[key] = {"text": row[text], "right": right}
    if isinstance(row["error"], str):
        shown["error"] = row["error"]
    if "likelihood" in run.metrics:
        one = run.predictions.iloc[[place]]
        scores = ranking_scores(one, run.length_normalised)[0].astype(np.float64)
        shares = softmax(scores)
        shown["ranking"] = [
            [int(p), round(float(scores[p]), 3), round(float(shares[p]), 4)]
            for p in np.argsort(-scores, kind="stable")
        ]
    return shown


def as_script(data: dict[str, Any]) -> Markup:
    """JSON that may stand inside a script element, whatever titles hold."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)
