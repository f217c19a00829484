"""An objective: reward x negative set x aggregation x margin, evaluated on one batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from raypo.objectives.aggregation import Aggregation
from raypo.objectives.batch import ObjectiveOutput, PreferenceBatch
from raypo.objectives.collectives import Group, World, meet, total
from raypo.objectives.margins import DynamicMargin, FixedMargin, Margin
from raypo.objectives.rewards import Reward
from raypo.objectives.sharing import NegativeSet, Own, Shared


@dataclass
class Objective:
    """A composed preference objective; call it with a PreferenceBatch.

    The loss is the mean over users of the global batch of the link of the aggregated gaps
    beta (R+ - R-). Log-probs are taken to float32 first.

    Attributes:
        name: the preset's name.
        reward, negatives, aggregation, margin: the parts.
        beta: temperature of the reward.
        process_group: workers that share a batch; None is the default group.
        training: moving statistics are updated only while it is True.
        confidence_baseline: R_0 of the dynamic margin, None before the first batch.
    """

    name: str
    reward: Reward
    negatives: Own | Shared
    aggregation: Aggregation
    margin: FixedMargin | DynamicMargin
    beta: float
    process_group: Group = field(default=None, repr=False)
    training: bool = True
    confidence_baseline: float | None = None

    @property
    def needs_reference(self) -> bool:
        """Whether batches need reference log-probs."""
        return self.reward.needs_reference

    @property
    def needs_recommender(self) -> bool:
        """Whether batches need the recommender's embeddings or scores."""
        return isinstance(self.negatives, Shared) or self.margin.needs_scores

    @property
    def needs_negatives(self) -> bool:
        """Whether batches need negatives: preference objectives do."""
        return True

    def train(self) -> None:
        """Let moving statistics move."""
        self.training = True

    def eval(self) -> None:
        """Freeze moving statistics."""
        self.training = False

    def state_dict(self) -> dict[str, float | None]:
        """Moving statistics."""
        return {"confidence_baseline": self.confidence_baseline}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; an empty mapping is a fresh start."""
        self.confidence_baseline = state.get("confidence_baseline")

    def __call__(self, batch: PreferenceBatch) -> ObjectiveOutput:
        """Loss and metrics of this worker's batch. Every worker must call it.

        Raises:
            ValueError: an input that the composition needs is missing.
        """
        self._require(batch)
        world = meet(len(batch.chosen_logps), batch.chosen_logps.device, self.process_group)
        chosen = self.reward.of(
            batch.chosen_logps.float(), batch.chosen_lengths, batch.reference_chosen_logps
        )
        own = self.reward.of(
            batch.rejected_logps.float(), batch.rejected_lengths, batch.reference_rejected_logps
        )
        negatives = self.negatives(own, batch, world)
        margin = self.margin(negatives, batch, world, self.confidence_baseline)
        gaps = self.beta * (chosen[:, None] - negatives.rewards)
        gamma = torch.tensor(margin.gamma, dtype=torch.float32, device=gaps.device)
        scores, weights = self.aggregation(gaps, negatives.valid, gamma)
        losses = (weights * softplus(-scores)).sum(dim=1)
        share = len(world.sizes) / world.total
        metrics = self._metrics(batch, chosen, own, negatives, losses, margin, world)
        return ObjectiveOutput(losses.sum() * share, metrics)

    def _require(self, batch: PreferenceBatch) -> None:
        names: list[str] = []
        if self.reward.needs_lengths:
            names += ["chosen_lengths", "rejected_lengths"]
        if self.reward.needs_reference:
            names += ["reference_chosen_logps", "reference_rejected_logps"]
        if self.needs_recommender:
            names += ["user_embeddings", "rejected_items"]
        if isinstance(self.negatives, Shared) and self.negatives.mask_collisions:
            names += ["chosen_items", "history_items"]
        if self.margin.needs_scores:
            names += ["item_scores"]
        batch.require(self.name, *names)

    def _metrics(
        self,
        batch: PreferenceBatch,
        chosen: Tensor,
        own: Tensor,
        negatives: NegativeSet,
        losses: Tensor,
        margin: Margin,
        world: World,
    ) -> dict[str, float]:
        """Global means, in one reduction and one transfer to the host; moves R_0 in training."""
        above = (chosen[:, None] > own).all(dim=1)
        per_user = {
            "loss": losses,
            "rewards/chosen": self.beta * chosen,
            "rewards/rejected": self.beta * own.mean(dim=1),
            "rewards/margin": self.beta * (chosen - own.mean(dim=1)),
            "rewards/accuracy": above,
            "negatives": negatives.valid.sum(dim=1),
            "logps/chosen": batch.chosen_logps,
            "logps/rejected": batch.rejected_logps.mean(dim=1),
        }
        sums = torch.stack([values.detach().double().sum() for values in per_user.values()])
        means = (total(sums, world) / world.total).tolist()
        metrics = dict(zip(per_user, means, strict=True))
        metrics |= {"gamma": margin.gamma, "beta": self.beta}
        if isinstance(self.margin, DynamicMargin) and margin.confidence is not None:
            before = self.margin.baseline_before(self.confidence_baseline, margin.confidence)
            metrics |= {"confidence": margin.confidence, "confidence_baseline": before}
            if self.training:
                self.confidence_baseline = self.margin.baseline_after(
                    self.confidence_baseline, margin.confidence
                )
        return metrics
