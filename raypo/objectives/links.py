"""Links: from a score z, how far the chosen is ahead, to a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from raypo.objectives.batch import PreferenceBatch
from raypo.objectives.step import Step

Oracle = Callable[[PreferenceBatch, Tensor], Tensor]


@dataclass(frozen=True)
class Logistic:
    """-log sigma(z)."""

    kind: str = "logistic"
    needs_scores: bool = False

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """Losses, shaped like the scores [b, S]."""
        return softplus(-scores)


@dataclass(frozen=True)
class Smoothed:
    """RosePO's smoothed labels (arXiv 2410.12519): -(1 - eps) log sigma(z) - eps log sigma(-z).

    eps(u, i) in [0, 0.5) is the chance that a negative is one the user would like. By default the
    recommender tells: eps = eps_max sigma((s(u, y-) - s(u, y+)) / tau).

    Attributes:
        eps_max: upper bound of eps. tau: width of the step between liked and not.
        oracle: (batch, items [b, E]) -> eps [b, E]; takes the recommender's place.
    """

    eps_max: float = 0.4
    tau: float = 1.0
    oracle: Oracle | None = None
    kind: str = "smoothed"

    @property
    def needs_scores(self) -> bool:
        """Whether the recommender is asked."""
        return self.oracle is None

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """Losses [b, E] of pair scores [b, E]."""
        eps = self._eps(step).to(scores.dtype)
        return (1 - eps) * softplus(-scores) + eps * softplus(scores)

    @torch.no_grad()
    def _eps(self, step: Step) -> Tensor:
        batch, items = step.batch, step.items
        assert items is not None
        if self.oracle is not None:
            return self.oracle(batch, items)
        assert batch.item_scores is not None
        assert batch.user_embeddings is not None and batch.chosen_items is not None
        asked = torch.cat([batch.chosen_items[:, None], items], dim=1)
        scored = batch.item_scores(batch.user_embeddings, asked).float()
        return self.eps_max * torch.sigmoid((scored[:, 1:] - scored[:, :1]) / self.tau)


Link = Logistic | Smoothed
