"""Scores of the whole catalogue by recommenders and heuristics, and what they retrieve of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from raypo.data.dataset import Dataset
from raypo.data.training_rows import TrainingRows
from raypo.recommenders.base import SequentialRecommender
from raypo.recommenders.heuristics import fit_heuristic
from raypo.recommenders.histories import pad_sequences
from raypo.recommenders.train import load_recommender

# Scores [rows, items] of the whole catalogue after histories.
CatalogueScorer = Callable[[Sequence[Sequence[int]]], np.ndarray]
_ROWS_AT_A_TIME = 256


def catalogue_scorer(source: Path | str, dataset: Dataset, seed: int = 0) -> CatalogueScorer:
    """What scores the whole catalogue after histories.

    Args:
        source: run folder of a recommender, or `random`, `popularity`, `item-knn` or
            `markov-chain`, which are made from the training rows.
        dataset: of the items and training rows.
        seed: of `random`.

    Raises:
        InputError: the folder holds no recommender.
    """
    items = np.arange(dataset.num_items)
    if source == "random":
        generator = np.random.default_rng(seed)
        return lambda histories: generator.random((len(histories), len(items)))
    if isinstance(source, str):
        popularity = dataset.items["popularity"].to_numpy()
        fitted = fit_heuristic(source, TrainingRows.of_frame(dataset.train), len(items))  # type: ignore[arg-type]
        fitted = replace(fitted, popularity=popularity)
        return lambda histories: fitted(histories, np.tile(items, (len(histories), 1)))
    return partial(recommender_scores, load_recommender(source))


@torch.no_grad()
def recommender_scores(
    model: SequentialRecommender, histories: Sequence[Sequence[int]]
) -> np.ndarray:
    """A recommender's scores [rows, items] of the whole catalogue after histories."""
    embeddings = model.embed(pad_sequences(list(histories)))
    scores: np.ndarray = model.score_all(embeddings).numpy()
    return scores


def people_repeat(rows: TrainingRows) -> bool:
    """Whether a training row's target is in its own history."""
    targets = np.repeat(np.asarray(rows.targets), np.diff(rows.offsets))
    return bool((targets == np.asarray(rows.histories)).any())


def rankable(
    histories: Sequence[Sequence[int]], num_items: int, with_seen: bool = False
) -> np.ndarray:
    """Which items are ranked after each history, bool [rows, items]: those not in it.

    Args:
        histories: item ids of each row.
        num_items: in the catalogue.
        with_seen: also those in the history.
    """
    allowed = np.ones((len(histories), num_items), dtype=bool)
    if not with_seen:
        for row, history in enumerate(histories):
            allowed[row, np.asarray(history)] = False
    return allowed


def retrieve(
    scorers: Sequence[CatalogueScorer],
    histories: Sequence[Sequence[int]],
    allowed: Callable[[Sequence[Sequence[int]]], np.ndarray],
    count: int,
) -> list[list[int]]:
    """`count` items of the catalogue for each history: the best of all scorers in turn.

    Args:
        scorers: each gives its next best item that is not there yet.
        histories: item ids of each row.
        allowed: which items may be retrieved after histories, bool [rows, items].
        count: of items; fewer where no more are allowed.
    """
    found: list[list[int]] = []
    for start in range(0, len(histories), _ROWS_AT_A_TIME):
        part = histories[start : start + _ROWS_AT_A_TIME]
        may = allowed(part)
        orders = [best_items(scorer(part), may, count) for scorer in scorers]
        found += [_in_turn([order[row] for order in orders], count) for row in range(len(part))]
    return found


def best_items(scores: np.ndarray, allowed: np.ndarray, count: int) -> list[list[int]]:
    """Items of each row, the best first; of equal scores the smaller item first."""
    masked = np.where(allowed, scores, -np.inf)
    order = np.argsort(-masked, axis=1, kind="stable")[:, :count]
    return [
        [int(item) for item in items if may[item]]
        for items, may in zip(order, allowed, strict=True)
    ]


def _in_turn(orders: Sequence[list[int]], count: int) -> list[int]:
    chosen: dict[int, None] = {}
    for rank in range(max(map(len, orders), default=0)):
        for order in orders:
            if rank < len(order) and len(chosen) < count:
                chosen.setdefault(order[rank])
    return list(chosen)
