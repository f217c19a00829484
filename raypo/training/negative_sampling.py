"""Which of a row's items become its negatives.

Each source scores the items, and one that is left is drawn in proportion to exp(score /
temperature); temperature 0 takes the highest. In a mixture the source of each negative is drawn
first. Negatives are a function of (seed, epoch, row) and the scores, whatever rank asks for them.

- `uniform`: all items alike.
- `popular`: RosePO (arXiv 2410.12519), against popularity bias.
- `similar`: RosePO, items that are close to the target.
- `recommender`: what the sequential recommender takes for the target.
- `self-play`: what the policy takes for the target, as in SPRec (arXiv 2412.09243).

Shapes: m items that are drawn from, d size of item vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import sparse

from raypo.config import AlignConfig
from raypo.data.candidates import TrainingCandidates, num_unseen
from raypo.data.dataset import TrainingData
from raypo.data.title_similarity import title_vectors
from raypo.data.training_rows import TrainingRows
from raypo.errors import InputError
from raypo.recommenders.base import SequentialRecommender
from raypo.recommenders.heuristics import occurrences
from raypo.recommenders.hint_sources import unit_item_vectors
from raypo.recommenders.histories import pad_sequences
from raypo.recommenders.train import load_recommender

# (epoch, row, items [m]) -> scores [m]; -inf is drawn only where nothing else is left.
Scores = Callable[[int, int, np.ndarray], np.ndarray]

_STREAM = 2  # number of this stream of random draws: 1 is that of hint dropout


@dataclass(frozen=True)
class Source:
    """A source of negatives.

    Attributes:
        name: in the configuration.
        probability: of a negative to come from it.
        scores: of the items that are drawn from.
        temperature: by which scores are divided; 0 takes the highest.
    """

    name: str
    probability: float
    scores: Scores
    temperature: float = 1.0


@dataclass(frozen=True)
class NegativeSampler:
    """Draws a training row's negatives, without the target and without items twice.

    Attributes:
        sources: at least one.
        seed: of every draw.
        pool: what is drawn from: the row's candidates, or all items that its user did not interact
            with in training.
    """

    sources: tuple[Source, ...]
    seed: int
    pool: Literal["candidates", "catalogue"] = "candidates"

    def __call__(
        self, candidates: TrainingCandidates, epoch: int, row: int, count: int
    ) -> list[int]:
        """`count` negatives of a row.

        Args:
            candidates: of the training rows.
            epoch: pass over the data.
            row: training row.
            count: at most the items in the pool.
        """
        if self.pool == "catalogue":
            return self.draw(epoch, row, candidates.unseen(row), count)
        if [source.name for source in self.sources] == ["uniform"]:
            return candidates.negatives(row, epoch, count)
        listed = candidates.negatives(row, epoch, candidates.num_negatives)
        return self.draw(epoch, row, np.array(listed), count)

    def draw(self, epoch: int, row: int, items: np.ndarray, count: int) -> list[int]:
        """`count` of the items [m], one after the other."""
        generator = np.random.default_rng([self.seed, epoch, row, _STREAM])
        limits = np.cumsum([source.probability for source in self.sources])
        scores: dict[str, np.ndarray] = {}
        left = np.ones(len(items), dtype=bool)
        chosen = []
        for _ in range(count):
            source = self.sources[_position(limits, generator.random())]
            if source.name not in scores:
                scores[source.name] = source.scores(epoch, row, items)
            index = _pick(scores[source.name], source.temperature, left, generator.random())
            left[index] = False
            chosen.append(int(items[index]))
        return chosen

    def metrics(self) -> dict[str, float]:
        """Probability of each source, for the run's metrics."""
        return {f"negative_sampling/{one.name}": one.probability for one in self.sources}


def _pick(scores: np.ndarray, temperature: float, left: np.ndarray, number: float) -> int:
    """Index of one of the items that are left, drawn by a uniform number in [0, 1)."""
    remaining = np.flatnonzero(left)
    own = scores[remaining].astype(np.float64)
    highest = own.max()
    if highest == -np.inf:
        own, highest = np.zeros(len(own)), 0.0
    if temperature == 0:
        return int(remaining[own.argmax()])
    # Less the highest that is left, or all that are left may underflow to 0.
    weights = np.exp((own - highest) / temperature)
    return int(remaining[_position(np.cumsum(weights), number)])


def _position(limits: np.ndarray, number: float) -> int:
    """The interval that number * limits[-1] lies in; never an empty one."""
    last = np.searchsorted(limits, limits[-1])
    return int(min(np.searchsorted(limits, number * limits[-1], side="right"), last))


def uniform_scores() -> Scores:
    """The same score for all items."""
    return lambda epoch, row, items: np.zeros(len(items))


def popular_scores(popularity: np.ndarray, exponent: float) -> Scores:
    """Scores whose exponential is popularity [items] ** exponent."""
    if exponent == 0:
        return uniform_scores()
    with np.errstate(divide="ignore"):
        logs = exponent * np.log(popularity.astype(np.float64))
    return lambda epoch, row, items: logs[items]


def item_similarity(vectors: np.ndarray, rows: TrainingRows) -> Scores:
    """Cosine of item vectors [items, d] of unit length with the target's."""
    return lambda epoch, row, items: vectors[items] @ vectors[rows.targets[row]]


def title_similarity(vectors: sparse.csr_matrix, rows: TrainingRows) -> Scores:
    """Cosine of titles' vectors [items, d] of unit length with the target's."""
    return lambda epoch, row, items: np.asarray(
        (vectors[items] @ vectors[int(rows.targets[row])].T).toarray()
    ).ravel()


def recommender_scores(model: SequentialRecommender, rows: TrainingRows) -> Scores:
    """The recommender's scores after the row's history.

    Each row is scored alone on the CPU, so that its scores do not depend on the batch.
    """

    @torch.no_grad()
    def scores(epoch: int, row: int, items: np.ndarray) -> np.ndarray:
        embedding = model.embed(pad_sequences([rows.history(row)]))
        found: np.ndarray = model.score(embedding, torch.from_numpy(items[None])).numpy()[0]
        return found

    return scores


def make_negative_sampler(
    config: AlignConfig, data: TrainingData, self_play: Scores | None = None
) -> NegativeSampler:
    """The sampler of a configuration.

    Args:
        config: of the stage; `check_negative_sampling` has accepted it.
        data: the training rows.
        self_play: scores by the policy, for the source of that name.
    """
    options = config.negative_options

    def source(name: str, probability: float) -> Source:
        if name == "popular":
            counts = occurrences(data.rows, np.arange(len(data.rows)), data.num_items)
            return Source(name, probability, popular_scores(counts, options.popularity_exponent))
        if name == "similar":
            return Source(name, probability, _similarity(config, data), options.similar_temperature)
        if name == "recommender":
            scores = recommender_scores(_load(config), data.rows)
            return Source(name, probability, scores, options.recommender_temperature)
        if name == "self-play":
            assert self_play is not None
            return Source(name, probability, self_play, options.self_play_temperature)
        return Source(name, probability, uniform_scores())

    sources = tuple(source(*given) for given in config.negative_sources.items())
    return NegativeSampler(sources, config.seed, config.negatives_from)


def _similarity(config: AlignConfig, data: TrainingData) -> Scores:
    by_titles = config.negative_options.similarity == "titles" or config.recommender is None
    if by_titles:
        return title_similarity(title_vectors(data.titles), data.rows)
    return item_similarity(unit_item_vectors(_load(config)), data.rows)


def _load(config: AlignConfig) -> SequentialRecommender:
    assert config.recommender is not None
    return load_recommender(config.recommender)


def check_negative_sampling(config: AlignConfig, data: TrainingData, total_steps: int) -> None:
    """Check what can be checked before a model is loaded.

    Args:
        config: of the stage.
        data: the training rows.
        total_steps: optimiser steps of the run.

    Raises:
        InputError: there are too few items to draw from, the recommender knows other items, or
            there are more rounds of self-play than steps; the message names the setting.
    """
    _check_number(config, data)
    rounds = config.negative_options.self_play_rounds
    if "self-play" in config.negative_sources and rounds > total_steps:
        raise InputError(
            f"negative_options.self_play_rounds: {rounds} is more than the run's {total_steps} "
            "steps"
        )
    reads_items = config.negative_sources.keys() & {"recommender", "similar"}
    if reads_items and config.recommender is not None:
        known = len(unit_item_vectors(_load(config)))
        if known != data.num_items:
            raise InputError(
                f"recommender: {config.recommender} has {known} items, but the data set has "
                f"{data.num_items}; train it on this data set"
            )


def _check_number(config: AlignConfig, data: TrainingData) -> None:
    if config.negatives_from == "catalogue":
        shown = num_unseen((), data.num_items, data.cold)
        fewest = shown - int(np.diff(data.rows.seen_offsets).max())
        where = "every user has unseen"
    else:
        fewest = data.info["options"]["candidates"] - 1
        where = "the candidate sets hold"
    if config.negatives > fewest:
        raise InputError(f"negatives: {config.negatives} is more than {where} ({fewest})")
