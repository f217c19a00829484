"""Models compared with the best one, on the same rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from raypo.errors import InputError
from raypo.evaluation.ranking import row_hits
from raypo.evaluation.report.runs import ReportRun
from raypo.evaluation.significance import Comparison, compare

NUM_BOOTSTRAP = 2000


def check_same_rows(runs: Sequence[ReportRun]) -> None:
    """Refuse to compare models that were evaluated on different rows or candidates.

    Raises:
        InputError: names two such models.
    """
    if not runs:
        return
    first = runs[0]
    for run in runs[1:]:
        if first.predictions is None or run.predictions is None:
            continue
        if not _same_rows(first.predictions, run.predictions):
            raise InputError(
                f"{first.name} and {run.name} were evaluated on different rows or candidates; "
                "compare models that were evaluated on the same ones"
            )


def _same_rows(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    if len(first) != len(second) or not np.array_equal(first["row"], second["row"]):
        return False
    pairs = zip(first["candidates"], second["candidates"], strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


def best_of(runs: Sequence[ReportRun], mode: str) -> ReportRun | None:
    """The model with the highest HitRatio@1 among those evaluated in this mode."""
    evaluated = [run for run in runs if mode in run.metrics and run.predictions is not None]
    return max(evaluated, key=lambda run: run.metrics[mode]["HitRatio@1"], default=None)


def compare_with_best(runs: Sequence[ReportRun], mode: str) -> dict[str, Comparison]:
    """Compare every other model with the best one of a mode, on the rows that all answered.

    Models are ranked by the scores that their `metrics.json` was made from, per token or not.

    Args:
        runs: models on the same rows.
        mode: `likelihood`, `generate` or `constrained`.

    Returns:
        By name; p-values are corrected for the number of models.
    """
    best = best_of(runs, mode)
    others = [
        run
        for run in runs
        if mode in run.metrics and run is not best and run.predictions is not None
    ]
    if best is None or not others:
        return {}
    baseline, *hits = (_hits(run, mode) for run in (best, *others))
    answered = ~np.isnan(np.stack([baseline, *hits])).any(axis=0)
    if not answered.any():
        return {}
    assert best.predictions is not None
    users = best.predictions["user_id"].to_numpy()[answered]
    compared = compare([own[answered] for own in hits], baseline[answered], NUM_BOOTSTRAP, 0, users)
    return {run.name: one for run, one in zip(others, compared, strict=True)}


def _hits(run: ReportRun, mode: str) -> np.ndarray:
    assert run.predictions is not None
    return row_hits(run.predictions, mode, run.length_normalised)
