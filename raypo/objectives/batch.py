"""Input and output of an objective.

Shapes: b users of this rank's batch, n sampled negatives each, B users over all ranks, E negatives
in a user's set E_u, d embedding size, h items of a history.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

ItemScores = Callable[[Tensor, Tensor], Tensor]

# What the derivative of the loss with respect to a user's log-probs depends on: on none (SFT, where
# it is a constant), on those of the same user, or on those of the whole batch.
GradientScope = Literal["none", "user", "batch"]


@dataclass(frozen=True)
class PreferenceBatch:
    """One rank's batch.

    Attributes:
        chosen_logps: [b] summed log-probs of the target under the policy, with gradient.
        rejected_logps: [b, n] of the sampled negatives.
        chosen_lengths: [b] response tokens; needed by length-normalised rewards.
        rejected_lengths: [b, n] likewise.
        reference_chosen_logps: [b] under the frozen reference; needed by reference rewards.
        reference_rejected_logps: [b, n] likewise.
        user_embeddings: [b, d] sequence embeddings of the recommender; needed by sharing.
        chosen_items: [b] integer item ids; needed by sharing and masking.
        rejected_items: [b, n] likewise.
        history_items: [b, h] padded with -1; for masking.
        seen_items: [b, s] padded with -1: everything that the user interacted with in training; for
            masking.
        item_scores: (user_embeddings [m, d], items [m, k]) -> scores [m, k] in [-1, 1]; needed by
            margins that follow the recommender's confidence.
        item_ranks: likewise, the share of the catalogue that scores below each item, in [0, 1);
            needed by margins with confidence `rank`.
    """

    chosen_logps: Tensor
    rejected_logps: Tensor
    chosen_lengths: Tensor | None = None
    rejected_lengths: Tensor | None = None
    reference_chosen_logps: Tensor | None = None
    reference_rejected_logps: Tensor | None = None
    user_embeddings: Tensor | None = None
    chosen_items: Tensor | None = None
    rejected_items: Tensor | None = None
    history_items: Tensor | None = None
    seen_items: Tensor | None = None
    item_scores: ItemScores | None = None
    item_ranks: ItemScores | None = None

    def require(self, objective: str, *names: str) -> None:
        """Require inputs that an objective needs.

        Args:
            objective: its name, for the error.
            *names: attributes of this class.

        Raises:
            ValueError: one of them is missing; the message names the first.
        """
        for name in names:
            if getattr(self, name) is None:
                raise ValueError(f"objective {objective!r} needs {name} in its PreferenceBatch")


@dataclass(frozen=True)
class ObjectiveOutput:
    """Loss and metrics of a step.

    Attributes:
        loss: scalar, this rank's share: its average over ranks is the global mean, and the average
            of the ranks' gradients is the gradient of that mean.
        metrics: global values, the same on every rank.
    """

    loss: Tensor
    metrics: dict[str, float]
