"""The interface of sequential recommenders for training, alignment and evaluation.

Shapes: b users, h items of a history, d hidden size, m embeddings, k items scored per embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn


class _Module(Protocol):
    """The part of `torch.nn.Module` that is used: a Protocol cannot inherit from the class."""

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...
    def train(self) -> Self: ...
    def eval(self) -> Self: ...
    def requires_grad_(self, requires_grad: bool = True) -> Self: ...
    def to(self, device: torch.device) -> Self: ...


class SequentialRecommender(_Module, Protocol):
    """A torch module that reads histories and scores items by cosine.

    Histories hold item ids 0 .. num_items - 1, oldest first, padded with -1 at the end.

    Attributes:
        max_length: items of a history that are read.
    """

    max_length: int

    def __call__(self, histories: Tensor) -> Tensor:
        """States [b, h, d] at each position of histories [b, h], h <= max_length, for training.

        The state at a position depends only on the items up to it; at padding it is undefined.
        """

    def embed(self, histories: Tensor) -> Tensor:
        """Sequence embeddings [b, d] of histories [b, h]: the state at the last item of each.

        Longer histories are cut to their most recent `max_length` items.
        """

    def score(self, embeddings: Tensor, items: Tensor) -> Tensor:
        """Cosine [m, k] in [-1, 1] of embeddings [m, d] with items [m, k]; padding scores 0."""

    def score_all(self, embeddings: Tensor) -> Tensor:
        """Cosine [m, num_items] of embeddings [m, d] with the whole catalogue."""


def catalogue_ranks(
    recommender: SequentialRecommender, embeddings: Tensor, items: Tensor
) -> Tensor:
    """Share of the catalogue [m, k] that the recommender scores below each item, in [0, 1).

    Args:
        recommender: scores the whole catalogue.
        embeddings: [m, d] sequence embeddings.
        items: [m, k] item ids.
    """
    scores = recommender.score_all(embeddings)
    own = scores.gather(1, items)
    below = torch.searchsorted(scores.sort(dim=1).values, own)
    return below / scores.shape[1]
