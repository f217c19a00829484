"""Checks for scores without taste: orders of the items, positions of targets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import chisquare

from raypo.audit.baselines import HeuristicScore, target_positions
from raypo.audit.finding import EXAMPLES, Finding, Severity, describe
from raypo.audit.item_orders import ascending_share
from raypo.data.dataset import Dataset

# Below this, positions as uneven as these hardly occur among uniform ones.
_UNEVEN = 1e-6


def find_in_positions(dataset: Dataset) -> Iterator[Finding]:
    """Find held-out splits whose targets prefer some positions of the candidate list."""
    for split in ("validation", "test"):
        rows = getattr(dataset, split)
        if rows.empty:
            continue
        counts = np.bincount(target_positions(rows), minlength=len(rows["candidates"].iat[0]))
        if chisquare(counts).pvalue > _UNEVEN:
            continue
        frequent = np.argsort(-counts, kind="stable")[:EXAMPLES]
        yield Finding(
            f"{split} rows: targets stand at some positions of the candidate list more often than "
            "at others",
            "severe" if counts.max() > len(rows) / 2 else "warning",
            int(counts.max()),
            len(rows),
            tuple(f"position {i + 1}: {counts[i]} rows" for i in frequent),
            "a model can score by the position; shuffle the candidates",
        )


def find_in_orders(dataset: Dataset, orders: dict[str, np.ndarray]) -> Iterator[Finding]:
    """Find sequences that ascend in an order unrelated to time."""
    for name, rank in orders.items():
        share = ascending_share(dataset.test, rank)
        if share < 0.7:
            continue
        severity: Severity = "severe" if share >= 0.9 else "warning"
        examples = [
            " < ".join(f"{dataset.titles[item]} ({int(rank[item])})" for item in history[-3:])
            for history in dataset.test["history"].head(EXAMPLES)
        ]
        yield Finding(
            f"{share:.1%} of neighbours in test sequences ascend {name} (50% by chance)",
            severity,
            len(dataset.test),
            len(dataset.test),
            tuple(examples),
            "sequences are probably not in the order of time: a model can score by learning the "
            "order of the file; make sequences from timestamps, or report the heuristics' scores",
        )


def find_in_heuristics(
    dataset: Dataset, heuristics: list[HeuristicScore], chance: float
) -> Iterator[Finding]:
    """Find non-personalised heuristics that score above twice chance on test rows."""
    rows = len(dataset.test)
    baselines = [one for one in heuristics if one.baseline]
    best = max(baselines, key=lambda one: one.hit_ratio, default=None)
    for heuristic in heuristics:
        if heuristic.baseline or heuristic.low <= 2 * chance:
            continue
        beats = best is None or heuristic.low > best.hit_ratio
        compared = "" if best is None else f", {best.name} {best.hit_ratio:.3f}"
        yield Finding(
            f"the non-personalised heuristic '{heuristic.name}' scores HitRatio@1 "
            f"{heuristic.hit_ratio:.3f} [{heuristic.low:.3f}, {heuristic.high:.3f}]; chance is "
            f"{chance:.3f}{compared}",
            "severe" if beats else "warning",
            round(heuristic.hit_ratio * rows),
            rows,
            tuple(_test_example(dataset, row) for row in heuristic.hits),
            "a model that scores higher may have learned this heuristic; report it in every table",
        )


def _test_example(dataset: Dataset, number: int) -> str:
    row = dataset.test.iloc[number]
    return f"test:{number} {describe(dataset, row['history'], int(row['target']))}"
