"""How candidates are ranked: the one source of scores for metrics, tests and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from raypo.errors import InputError
from raypo.evaluation.metrics import hit_at, target_ranks
from raypo.evaluation.position_bias import position_bias


@dataclass(frozen=True)
class TextColumns:
    """Columns of predictions that hold a mode's answers.

    Attributes:
        text: the answer. item: the candidate that it names. error: why there is no answer.
    """

    text: str
    item: str
    error: str

    def requested(self, predictions: pd.DataFrame) -> np.ndarray:
        """Rows [n] that have an answer or failed; the others were never requested."""
        return np.asarray(predictions[[self.text, self.error]].notna().any(axis=1))


TEXT_COLUMNS: Mapping[str, TextColumns] = {
    "generate": TextColumns("answer", "answer_item", "error"),
    "constrained": TextColumns("constrained", "constrained_item", "constrained_error"),
}


@dataclass(frozen=True)
class Ranking:
    """Every row's candidates with the scores that rank them, the highest first.

    Attributes:
        scores: of the candidates, [n, c].
        candidates: item ids, [n, c].
        targets: position of the target among the candidates, [n].
    """

    scores: np.ndarray
    candidates: np.ndarray
    targets: np.ndarray

    @property
    def target_ranks(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of candidates above the target and of others tied with it, [n] each."""
        return target_ranks(self.scores, self.targets)

    @property
    def first_items(self) -> np.ndarray:
        """The item with the highest score of each row, [n]."""
        first = self.scores.argmax(axis=1)
        return np.asarray(self.candidates[np.arange(len(first)), first])

    @property
    def position_bias(self) -> np.ndarray:
        """As `position_bias`, [n], of the candidate with the highest score; ties by their mean."""
        return position_bias(self.scores == self.scores.max(axis=1, keepdims=True), self.targets)


def ranking_scores(predictions: pd.DataFrame, length_normalised: bool) -> np.ndarray:
    """The scores [n, c] that candidates are ranked by.

    Args:
        predictions: columns logps [c] and lengths [c].
        length_normalised: divide log-probs by the tokens of the response. A baseline's scores,
            which have no lengths, stay as they are.
    """
    scores = np.stack(predictions["logps"].to_list())
    if length_normalised and predictions["lengths"].notna().all():
        scores = scores / np.stack(predictions["lengths"].to_list())
    return np.asarray(scores)


def rank_candidates(predictions: pd.DataFrame, length_normalised: bool) -> Ranking:
    """The ranking of every row's candidates.

    Args:
        predictions: columns candidates, target, and those of `ranking_scores`.
        length_normalised: as in `ranking_scores`.
    """
    return _ranking(predictions, ranking_scores(predictions, length_normalised))


def rank_permutations(predictions: pd.DataFrame, length_normalised: bool) -> list[Ranking]:
    """The ranking under every further permutation of the candidates.

    Args:
        predictions: columns candidates, target, permutation_logps [p, c] and lengths [c].
        length_normalised: as in `ranking_scores`.
    """
    scores = np.stack([np.stack(list(row)) for row in predictions["permutation_logps"]])
    if length_normalised:
        scores = scores / np.stack(predictions["lengths"].to_list())[:, None]
    return [_ranking(predictions, one) for one in scores.swapaxes(0, 1)]


def row_hits(predictions: pd.DataFrame, mode: str, length_normalised: bool) -> np.ndarray:
    """Chance [n] of a hit at rank 1 of each row; not-a-number for rows without a request.

    Args:
        predictions: columns of `raypo.evaluation.predictions`.
        mode: `generate`, `constrained` or `likelihood`.
        length_normalised: as in `ranking_scores`, for mode `likelihood`.
    """
    if mode == "likelihood":
        return hit_at(1, *rank_candidates(predictions, length_normalised).target_ranks)
    columns = TEXT_COLUMNS[mode]
    hits = (predictions[columns.item] == predictions["target"]).fillna(False).to_numpy(dtype=float)
    return np.where(columns.requested(predictions), hits, np.nan)


def recommended(predictions: pd.DataFrame, mode: str, length_normalised: bool) -> np.ndarray:
    """The item recommended in each row that has one; arguments as `row_hits`."""
    if mode == "likelihood":
        return rank_candidates(predictions, length_normalised).first_items
    return np.asarray(predictions[TEXT_COLUMNS[mode].item].dropna().astype("int64"))


def _ranking(predictions: pd.DataFrame, scores: np.ndarray) -> Ranking:
    """The ranking by these scores.

    Raises:
        InputError: a score is no finite number. Comparisons with not-a-number are false, which
            would put such a target first.
    """
    wrong = np.argwhere(~np.isfinite(scores))
    if len(wrong):
        row, position = (int(one) for one in wrong[0])
        raise InputError(
            f"predictions of row {predictions['row'].iloc[row]}: the score of candidate {position} "
            f"is {scores[row, position]}, expected a finite number"
        )
    candidates = np.stack(predictions["candidates"].to_list())
    targets = (candidates == predictions["target"].to_numpy()[:, None]).argmax(axis=1)
    return Ranking(scores, candidates, targets)
