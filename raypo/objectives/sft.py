"""Supervised fine-tuning as an objective: the same training loop, without negatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from raypo.objectives.batch import GradientScope, ObjectiveOutput, PreferenceBatch
from raypo.objectives.stateless import StatelessObjective


@dataclass
class SftObjective(StatelessObjective):
    """Token-mean negative log-likelihood of the chosen responses of the global batch."""

    name: str = "sft"
    needs_negatives: bool = False
    gradient_scope: GradientScope = "none"

    def __call__(self, batch: PreferenceBatch) -> ObjectiveOutput:
        """Loss and metrics, from chosen_logps and chosen_lengths.

        Raises:
            ValueError: chosen_lengths is missing.
        """
        batch.require(self.name, "chosen_lengths")
        assert batch.chosen_lengths is not None
        negative = -batch.chosen_logps.float().sum()
        users, tokens = len(batch.chosen_logps), batch.chosen_lengths.sum().double()
        sums = torch.stack([negative.detach().double(), tokens, torch.tensor(users).to(tokens)])
        (loss, total_tokens, total_users), world_size = self.global_sums(sums)
        return ObjectiveOutput(
            negative * (world_size / total_tokens),
            {"loss": loss / total_tokens, "logps/chosen": -loss / total_users},
        )
