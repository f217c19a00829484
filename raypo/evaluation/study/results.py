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
from raypo.evaluation.catalogue.metrics import LIST, target_positions
from raypo.evaluation.catalogue.ranked import read_ranked
from raypo.evaluation.fusion.added import Difference, compare_metric
from raypo.evaluation.intervals import Resampling, bootstrap_interval
from raypo.evaluation.metrics import hit_at, ndcg_at, reciprocal_rank, target_ranks
from raypo.evaluation.position_bias import position_remark
from raypo.evaluation.predictions import read_predictions
from raypo.evaluation.ranking import rank_candidates
from raypo.evaluation.significance import holm
from raypo.evaluation.study.record import StudyRecord
from raypo.io.files import read_json

OF_CANDIDATES = ("HitRatio@1", "NDCG@5", "MRR")
OF_CATALOGUE = ("HitRatio@10", "NDCG@10", "MRR")


def metrics_of(study: StudyConfig) -> tuple[str, ...]:
    """Metrics of a study's tables, the one of its figures first."""
    return OF_CATALOGUE if study.ranks_catalogue else OF_CANDIDATES


@dataclass(frozen=True)
class SeedResult:
    """One evaluation.

    Attributes:
        rows, users: of the test rows, [n].
        metrics: name -> [n], by likelihood or by a recommender's scores.
        position_bias: of each row's first candidate, [n]; None for rankings of the catalogue.
        popularity_bias: of the first candidate, or of the catalogue's first ten items; None where
            it was not computed.
    """

    rows: np.ndarray
    users: np.ndarray
    metrics: dict[str, np.ndarray]
    position_bias: np.ndarray | None
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

    def pooled(self, metric: str, seeds: Sequence[int]) -> np.ndarray:
        """A metric's means over these seeds, [n]."""
        pooled: np.ndarray = np.mean([self.seeds[seed].metrics[metric] for seed in seeds], axis=0)
        return pooled

    def mean(self, metric: str, resampling: Resampling) -> tuple[float, float, float]:
        """The metric pooled over all seeds, with its 95% interval over users."""
        return self._mean(self.pooled(metric, list(self.seeds)), resampling)

    def position_remark(self, resampling: Resampling) -> str:
        """What places do to the first candidate, over all seeds; empty where nothing was seen."""
        biases = [one.position_bias for one in self.seeds.values() if one.position_bias is not None]
        return position_remark(*self._mean(np.mean(biases, axis=0), resampling)) if biases else ""

    def _mean(self, values: np.ndarray, resampling: Resampling) -> tuple[float, float, float]:
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

    Args:
        study: its configuration.
        record: of what has run.

    Raises:
        InputError: evaluations of different test rows.
    """
    cells = []
    for name, cell in study.cells.items():
        folders = {seed: record.folder(name, seed) for seed in study.seeds}
        read_seed = read_ranking if study.ranks_catalogue else read_evaluation
        seeds = {seed: read_seed(folder) for seed, folder in folders.items() if folder is not None}
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
    values = (hit_at(1, *ranks), ndcg_at(5, *ranks), reciprocal_rank(*ranks))
    metrics = dict(zip(OF_CANDIDATES, values, strict=True))
    written = read_json(evaluation / "metrics.json")["likelihood"]
    return SeedResult(
        frame["row"].to_numpy(),
        frame["user_id"].to_numpy(),
        metrics,
        ranking.position_bias,
        written.get("PopularityBias"),
    )


def read_ranking(evaluation: Path) -> SeedResult:
    """A ranking of the catalogue."""
    frame = read_ranked(evaluation)
    positions = target_positions(frame)
    values = (hit_at(LIST, *positions), ndcg_at(LIST, *positions), reciprocal_rank(*positions))
    metrics = dict(zip(OF_CATALOGUE, values, strict=True))
    written = read_json(evaluation / "metrics.json")["catalogue"]
    bias = written.get(f"PopularityBias@{LIST}")
    return SeedResult(frame["row"].to_numpy(), frame["user_id"].to_numpy(), metrics, None, bias)


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
            differences = {
                metric: compare_metric(
                    own.pooled(metric, seeds), other.pooled(metric, seeds), users, resampling
                )
                for metric in metrics_of(study)
            }
        compared.append((claim, seeds, differences))
    adjusted: list[dict[str, float]] = [{} for _ in compared]
    for metric in metrics_of(study):
        ran = [place for place, (_, seeds, _) in enumerate(compared) if seeds]
        p_values = [compared[place][2][metric].p_value for place in ran]
        for place, value in zip(ran, holm(p_values) if ran else [], strict=True):
            adjusted[place][metric] = value
    return [ClaimResult(*one, corrected) for one, corrected in zip(compared, adjusted, strict=True)]
