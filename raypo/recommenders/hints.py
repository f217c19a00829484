"""Hints of recommenders and heuristics for prompts: ranks, an order, or vectors.

Hints at training rows are out of fold: they come from a fit that has not seen the row
(`raypo.data.folds`), as the hints at held-out rows do. A policy that learns from hints of a
recommender fitted to the same rows learns to trust them more than they deserve.

Shapes: b users, k candidates each, s sources, f features of a title.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from raypo.config.policy import HintFeature, HintKind
from raypo.data.conditional_logit import standardised
from raypo.data.hints import UserHints
from raypo.recommenders.base import SequentialRecommender
from raypo.recommenders.histories import pad_sequences

UNKNOWN = "?"  # in place of a rank
# Scores [b, k] of candidates [b, k] after histories.
Score = Callable[[Sequence[Sequence[int]], np.ndarray], np.ndarray]


@dataclass(frozen=True)
class SourceFits:
    """The fits of one source of hints.

    Attributes:
        label: name in prompts.
        held_out: the fit for rows that training does not hold.
        folds: the fit that has not seen the training rows of each fold.
        item_vectors: [items, d] of a sequential recommender, unit length times sqrt(d), with
            vector hints; None for a heuristic.
        reads_texts: it knows items that training never showed by their texts.
    """

    label: str
    held_out: Score
    folds: tuple[Score, ...] = ()
    item_vectors: np.ndarray | None = None
    reads_texts: bool = False


@dataclass(frozen=True)
class RecommenderHints:
    """Gives users' hints (`raypo.data.hints.Hints`).

    Attributes:
        kind: `rank`, `order` or `vector`.
        sources: in the order in which a mark lists their ranks; `order` is that of the first.
        popularity: [items] log of occurrences in training, standardised over the catalogue.
        features: what a vector is made from.
        side: of a title, where its marker stands.
        weights: [s] of the sources in one score that takes their place; None keeps them apart.
        new: items that training never showed, bool [items], of which only sources that read texts
            say something; None is none of them.
    """

    kind: HintKind
    sources: tuple[SourceFits, ...]
    popularity: np.ndarray
    features: tuple[HintFeature, ...] = ("item", "score", "popularity")
    side: Literal["before", "after"] = "before"
    weights: np.ndarray | None = None
    new: np.ndarray | None = None

    @property
    def sentence(self) -> str:
        """Text for a template's `{hints}`."""
        labels = [source.label for source in self.sources]
        if self.weights is not None:
            labels = ["recommenders"]
        if self.kind == "rank":
            return f" (ranks by {', '.join(labels)})"
        return f" (in the order of {labels[0]})" if self.kind == "order" else ""

    @property
    def marker(self) -> Literal["before", "after"] | None:
        """Side of a title on which its marker stands."""
        return self.side if self.kind == "vector" else None

    @property
    def num_features(self) -> int:
        """Features f of a title's vector; 0 for hints without vectors."""
        return self._features([0], self._known([0])).shape[1] if self.kind == "vector" else 0

    def __call__(
        self,
        histories: Sequence[Sequence[int]],
        candidates: Sequence[Sequence[int]],
        folds: Sequence[int] | None = None,
        hidden: Sequence[np.ndarray] | None = None,
    ) -> list[UserHints]:
        """The hints of several users; see `raypo.data.hints.Hints`."""
        known = [self._known(items) for items in candidates]
        if hidden is not None:
            known = [own & ~hide for own, hide in zip(known, hidden, strict=True)]
        scores = self._scores(histories, candidates, folds, known)
        return [
            self._user(*user) for user in zip(histories, candidates, scores, known, strict=True)
        ]

    def _known(self, items: Sequence[int]) -> np.ndarray:
        """Which of k items each source knows, bool [s, k], or [1, k] with weights."""
        blind = [not source.reads_texts for source in self.sources]
        if self.weights is not None:
            blind = [any(blind)]
        new = np.zeros(len(items), dtype=bool) if self.new is None else self.new[list(items)]
        return np.stack([~(is_blind & new) for is_blind in blind])

    def scores(
        self,
        histories: Sequence[Sequence[int]],
        candidates: Sequence[Sequence[int]],
        folds: Sequence[int] | None = None,
    ) -> list[np.ndarray]:
        """Scores [s, k] of each user's candidates by every source, or [1, k] with weights."""
        return self._scores(histories, candidates, folds, [self._known(own) for own in candidates])

    def _scores(
        self,
        histories: Sequence[Sequence[int]],
        candidates: Sequence[Sequence[int]],
        folds: Sequence[int] | None,
        known: Sequence[np.ndarray],
    ) -> list[np.ndarray]:
        result: list[np.ndarray] = [np.empty(0)] * len(histories)
        for group in _groups([len(items) for items in candidates], folds):
            read = [histories[user] for user in group]
            items = np.array([list(candidates[user]) for user in group], dtype=np.int64)
            fold = None if folds is None else folds[group[0]]
            fits = [one.held_out if fold is None else one.folds[fold] for one in self.sources]
            by_source = np.stack([score(read, items) for score in fits], axis=1)
            for user, own in zip(group, by_source, strict=True):
                result[user] = own
                if self.weights is not None:
                    alike = np.repeat(known[user], len(own), axis=0)
                    result[user] = self.weights[None] @ _standardised(own, alike)
        return result

    def _user(
        self,
        history: Sequence[int],
        candidates: Sequence[int],
        scores: np.ndarray,
        known: np.ndarray,
    ) -> UserHints:
        ordered = np.where(known, scores, -np.inf)  # what is not known comes last
        if self.kind == "rank":
            ranks = np.where(known, [ranks_of(own) for own in ordered], 0)
            marks = [" ".join(str(rank or UNKNOWN) for rank in own) + ":" for own in ranks.T]
            return UserHints(marks=marks)
        if self.kind == "order":
            return UserHints(order=np.argsort(-ordered[0], kind="stable"))
        return UserHints(
            history_features=self._features(history, self._known(history)),
            candidate_features=self._features(candidates, known, scores),
        )

    def _features(
        self, items: Sequence[int], known: np.ndarray, scores: np.ndarray | None = None
    ) -> np.ndarray:
        """Features [n, f] of titles: candidates with scores [s, n], history items without.

        What is not `known`, bool [s, n], is 0.
        """
        columns = [np.full((len(items), 1), 0.0 if scores is None else 1.0)]
        index = np.asarray(items, dtype=np.int64)
        if "item" in self.features:
            by_source = np.broadcast_to(known, (len(self.sources), len(items)))
            columns += [
                source.item_vectors[index] * own[:, None]
                for source, own in zip(self.sources, by_source, strict=True)
                if source.item_vectors is not None
            ]
        if "score" in self.features:
            columns.append(
                np.zeros((len(items), len(known)))
                if scores is None
                else _standardised(scores, known).T
            )
        if "popularity" in self.features:
            columns.append((self.popularity[index] * known.any(axis=0))[:, None])
        return np.asarray(np.concatenate(columns, axis=1), dtype=np.float32)


@dataclass(frozen=True)
class ModelScore:
    """Scores of a sequential recommender (`Score`)."""

    model: SequentialRecommender

    @torch.no_grad()
    def __call__(self, histories: Sequence[Sequence[int]], candidates: np.ndarray) -> np.ndarray:
        """Scores [b, k] of candidates [b, k] after histories."""
        embeddings = self.model.embed(pad_sequences(histories))
        return np.asarray(self.model.score(embeddings, torch.from_numpy(candidates)).numpy())


def _standardised(scores: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Scores [s, k] standardised over the candidates that each source knows; 0 for the others."""
    result = np.zeros(scores.shape)
    for own, score, is_known in zip(result, scores, known, strict=True):
        if is_known.any():
            own[is_known] = standardised(score[None, is_known])[0]
    return result


def log_popularity(occurrences: np.ndarray) -> np.ndarray:
    """Log of occurrences plus one, standardised over the catalogue, [items]."""
    logs = np.log1p(occurrences.astype(np.float64))
    return np.asarray((logs - logs.mean()) / (logs.std() or 1.0))


def label_of(folder: Path, kind: str) -> str:
    """Name of a sequential recommender in prompts, such as SASRec."""
    return {"sasrec": "SASRec", "gru4rec": "GRU4Rec", "caser": "Caser", "morec": "MoRec"}.get(
        kind, folder.name
    )


def ranks_of(scores: np.ndarray | Sequence[float]) -> np.ndarray:
    """Rank [k] of each candidate from 1, the first of equal scores first."""
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[np.argsort(-np.asarray(scores), kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks


def _groups(sizes: Sequence[int], folds: Sequence[int] | None) -> list[list[int]]:
    """Users with as many candidates and the same fold, who are scored together."""
    groups: dict[tuple[int, int], list[int]] = {}
    for user, size in enumerate(sizes):
        groups.setdefault((size, -1 if folds is None else int(folds[user])), []).append(user)
    return list(groups.values())
