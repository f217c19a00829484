"""Pipelines of several seeds: each model's metrics, and paired differences pooled over the seeds.

`python benchmarks/pooled_seeds.py runs/demo runs/seed1 runs/seed2`

A row counts with its mean over the seeds, and users are resampled: seeds of one user's row are no
independent observations.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from raypo.errors import InputError
from raypo.evaluation.fusion.added import compare_metric
from raypo.evaluation.intervals import Resampling
from raypo.evaluation.study.results import read_evaluation

MODELS = {
    "SFT": "evaluate-*/sft",
    "aligned": "evaluate-*/aligned",
    "recommender": "evaluate-sasrec-*",
    "fused without LLM": "fuse-without-*",
    "fused with LLM": "fuse-[0-9a-f]*",
}
PAIRS = (
    ("aligned", "SFT"),
    ("aligned", "recommender"),
    ("fused with LLM", "recommender"),
    ("fused with LLM", "fused without LLM"),
)
METRICS = ("HitRatio@1", "NDCG@5")


def read_model(pipeline: Path, pattern: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows [n], users [n] and metrics [2, n] of the newest evaluation that a pattern finds."""
    found = [run for run in pipeline.glob(pattern) if (run / "predictions.parquet").exists()]
    if not found:
        raise InputError(f"{pipeline}: no evaluation {pattern}; give folders of finished pipelines")
    read = read_evaluation(max(found, key=lambda run: run.stat().st_mtime_ns))
    return read.rows, read.users, np.stack([read.metrics[name] for name in METRICS])


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipelines", nargs="+", type=Path)
    pipelines = parser.parse_args().pipelines
    pooled: dict[str, np.ndarray] = {}
    users = np.empty(0)
    table = Table("model", *(f"{folder.name}" for folder in pipelines), "mean", title=METRICS[0])
    for name, pattern in MODELS.items():
        runs = [read_model(folder, pattern) for folder in pipelines]
        if any(not np.array_equal(run[0], runs[0][0]) for run in runs):
            raise InputError(f"{name}: the pipelines evaluated different rows")
        users = runs[0][1]
        pooled[name] = np.mean([run[2] for run in runs], axis=0)
        cells = [f"{run[2][0].mean():.3f}" for run in runs]
        table.add_row(name, *cells, f"{pooled[name][0].mean():.3f}")
    console = Console()
    console.print(table)
    differences = Table("difference", *METRICS)
    for own, other in PAIRS:
        compared = [
            compare_metric(*rows, users, Resampling(2000, 0))
            for rows in zip(pooled[own], pooled[other], strict=True)
        ]
        cells = [
            f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}], p = {one.p_value:.3f}"
            for one in compared
        ]
        differences.add_row(f"{own} - {other}", *cells)
    console.print(differences)


if __name__ == "__main__":
    main()
