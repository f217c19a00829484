"""Links: from a score z, by which the chosen item is ahead, to a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import softplus

from raypo.objectives.batch import PreferenceBatch
from raypo.objectives.loss_context import LossContext
from raypo.objectives.options import below_half, function, positive, validate_options

Oracle = Callable[[PreferenceBatch, Tensor], Tensor]


@dataclass(frozen=True)
class Logistic:
    """-log sigma(z)."""

    kind: str = "logistic"
    inputs: tuple[str, ...] = ()

    def __call__(self, scores: Tensor, context: LossContext) -> Tensor:
        """Losses, shaped like the scores [b, S]."""
        return softplus(-scores)


@dataclass(frozen=True)
class Smoothed:
    """RosePO's smoothed labels (arXiv 2410.12519): -(1 - eps) log sigma(z) - eps log sigma(-z).

    eps(u, i) in [0, 0.5) is the probability that the user likes a negative. By default it follows
    the recommender's scores: eps = eps_max sigma((s(u, y-) - s(u, y+)) / tau).
    """

    eps_max: Annotated[
        float, below_half("upper bound of the probability that the user likes a negative")
    ] = 0.4
    tau: Annotated[
        float, positive("width of the step between liked and not, in recommender scores")
    ] = 1.0
    oracle: Annotated[
        Oracle | None,
        function("(batch, items [b, E]) -> eps [b, E], instead of the recommender; Python only"),
    ] = None
    kind: str = "smoothed"

    def __post_init__(self) -> None:
        """Validate the options."""
        validate_options(self)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What batches must have."""
        return () if self.oracle is not None else ("item_scores",)

    def __call__(self, scores: Tensor, context: LossContext) -> Tensor:
        """Losses [b, E] of pair scores [b, E]."""
        eps = self._eps(context).to(scores.dtype)
        return (1 - eps) * softplus(-scores) + eps * softplus(scores)

    @torch.no_grad()
    def _eps(self, context: LossContext) -> Tensor:
        batch, items = context.batch, context.items
        assert items is not None
        if self.oracle is not None:
            return self.oracle(batch, items)
        assert batch.item_scores is not None
        assert batch.user_embeddings is not None and batch.chosen_items is not None
        scored_items = torch.cat([batch.chosen_items[:, None], items], dim=1)
        scores = batch.item_scores(batch.user_embeddings, scored_items).float()
        return self.eps_max * torch.sigmoid((scores[:, 1:] - scores[:, :1]) / self.tau)


Link = Logistic | Smoothed
LINKS: Mapping[str, Callable[..., Link]] = {"logistic": Logistic, "smoothed": Smoothed}
