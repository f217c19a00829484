"""What the cells of a study gave, and what its claims come to.

A row counts with its mean over the seeds, and intervals and tests are over users: the rows of one
user, and one row under several seeds, are no independent observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raypo.config.study import Claim, StudyConfig
from raypo.errors import InputError
from raypo.evaluation.fusion.added import Difference, compare_metric
from raypo.evaluation.intervals import Resampling, bootstrap_interval
from raypo.evaluation.metrics import hit_at, ndcg_at, reciprocal_rank, target_ranks
from raypo.evaluation.predictions import read_predictions
from raypo.evaluation.ranking import rank_candidates
from raypo.evaluation.significance import holm
from raypo.evaluation.study.record import StudyRecord
from raypo.io.files import read_json

METRICS = ("HitRatio@1", "NDCG@5", "MRR")


@dataclass(frozen=True)
class SeedResult:
    """One evaluation.

    Attributes:
        rows, users: of the test rows, [n].
        metrics: [len(METRICS), n], by likelihood or by a recommender's scores.
        popularity_bias: of the first-ranked candidates; None where it was not computed.
    """

    rows: np.ndarray
    users: np.ndarray
    metrics: np.ndarray
    popularity_bias: float | None


@dataclass(frozen=True)
class CellResult:
    """A cell over its seeds.

    Attributes:
        name: of the cell.
        seeds: by seed, those that have run.
        seconds: mean time of a seed; None where nothing had to run for it.
        paper: metric -> what the source reports.
    """

    name: str
    seeds: dict[int, SeedResult]
    seconds: float | None
    paper: dict[str, float]

    def pooled(self, seeds: Sequence[int]) -> np.ndarray:
        """[len(METRICS), n], means over these seeds."""
        pooled: np.ndarray = np.mean([self.seeds[seed].metrics for seed in seeds], axis=0)
        return pooled

    def mean(self, metric: str, resampling: Resampling) -> tuple[float, float, float]:
        """The metric pooled over all seeds, with its 95% interval over users."""
        values = self.pooled(list(self.seeds))[METRICS.index(metric)]
        users = next(iter(self.seeds.values())).users
        low, high = bootstrap_interval(
            values, resampling.num_bootstrap, resampling.seed, users=users
        )
        return float(values.mean()), low, high


@dataclass(frozen=True)
class ClaimResult:
    """A claim's comparison.

    Attributes:
        claim: what was asked.
        seeds: that both cells have; without any, there is nothing else.
        differences: metric -> the difference.
        adjusted: metric -> p-value after Holm's correction over the study's claims.
    """

    claim: Claim
    seeds: list[int]
    differences: dict[str, Difference]
    adjusted: dict[str, float]

    def verdict(self, metric: str) -> str:
        """What the rows say of it; a claim without power is open."""
        if not self.seeds:
            return "not run"
        found = self.differences[metric]
        if self.adjusted[metric] < 0.05:
            return "holds" if found.difference > 0 else "the other way"
        if found.smallest_detectable == 0:
            return "open: no row differs"
        return f"open: {found.smallest_detectable:.3f} would likely have been seen"


def read_study(study: StudyConfig, record: StudyRecord) -> list[CellResult]:
    """All cells in the study's order; those that have not run have no seeds.

    Raises:
        InputError: evaluations of different test rows.
    """
    cells = []
    for name, cell in study.cells.items():
        folders = {seed: record.folder(name, seed) for seed in study.seeds}
        seeds = {
            seed: read_evaluation(folder) for seed, folder in folders.items() if folder is not None
        }
        cells.append(CellResult(name, seeds, record.seconds(name), cell.paper))
    read = [one for cell in cells for one in cell.seeds.values()]
    if any(not np.array_equal(one.rows, read[0].rows) for one in read):
        raise InputError(
            f"{study.output}: cells were evaluated on different test rows; evaluate.max_rows, "
            "evaluate.seed and the data have to be the same in all"
        )
    return cells


def read_evaluation(evaluation: Path) -> SeedResult:
    """An evaluation by likelihood, or of a recommender."""
    frame = read_predictions(evaluation)
    ranking = rank_candidates(frame, False)
    ranks = target_ranks(ranking.scores, ranking.targets)
    metrics = np.stack([hit_at(1, *ranks), ndcg_at(5, *ranks), reciprocal_rank(*ranks)])
    written = read_json(evaluation / "metrics.json")["likelihood"]
    return SeedResult(
        frame["row"].to_numpy(), frame["user_id"].to_numpy(), metrics, written.get("PopularityBias")
    )


def compare_claims(study: StudyConfig, cells: Sequence[CellResult]) -> list[ClaimResult]:
    """Every claim's paired comparison on the seeds that both of its cells have."""
    by_name = {cell.name: cell for cell in cells}
    resampling = Resampling(study.num_bootstrap, 0)
    compared: list[tuple[Claim, list[int], dict[str, Difference]]] = []
    for claim in study.claims:
        own, other = by_name[claim.cell], by_name[claim.than]
        seeds = sorted(own.seeds.keys() & other.seeds.keys())
        differences = {}
        if seeds:
            users = own.seeds[seeds[0]].users
            pairs = zip(METRICS, own.pooled(seeds), other.pooled(seeds), strict=True)
            differences = {
                name: compare_metric(first, second, users, resampling)
                for name, first, second in pairs
            }
        compared.append((claim, seeds, differences))
    adjusted: list[dict[str, float]] = [{} for _ in compared]
    for metric in METRICS:
        ran = [place for place, (_, seeds, _) in enumerate(compared) if seeds]
        p_values = [compared[place][2][metric].p_value for place in ran]
        for place, value in zip(ran, holm(p_values) if ran else [], strict=True):
            adjusted[place][metric] = value
    return [ClaimResult(*one, corrected) for one, corrected in zip(compared, adjusted, strict=True)]
