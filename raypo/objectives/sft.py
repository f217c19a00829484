"""Supervised fine-tuning as an objective: the same training loop, without negatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from raypo.objectives.batch import ObjectiveOutput, PreferenceBatch
from raypo.objectives.collectives import Collective, Group


@dataclass
class SftObjective:
    """Token-mean negative log-likelihood of the chosen responses of the global batch."""

    name: str = "sft"
    process_group: Group = field(default=None, repr=False)
    needs_reference: bool = False
    needs_recommender: bool = False
    needs_negatives: bool = False
    collective_seconds: float = 0.0

    def train(self) -> None:
        """Nothing moves in it."""

    def eval(self) -> None:
        """Nothing moves in it."""

    def state_dict(self) -> dict[str, float | None]:
        """Empty: it keeps no statistics."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""

    def __call__(self, batch: PreferenceBatch) -> ObjectiveOutput:
        """Loss and metrics; reads chosen_logps and chosen_lengths alone.

        Raises:
            ValueError: chosen_lengths is missing.
        """
        batch.require(self.name, "chosen_lengths")
        assert batch.chosen_lengths is not None
        collective = Collective(self.process_group)
        negative = -batch.chosen_logps.float().sum()
        users, tokens = len(batch.chosen_logps), batch.chosen_lengths.sum().double()
        sums = torch.stack([negative.detach().double(), tokens, torch.tensor(users).to(tokens)])
        loss, total_tokens, total_users = collective.total(sums).tolist()
        self.collective_seconds += collective.seconds
        return ObjectiveOutput(
            negative * (collective.workers / total_tokens),
            {"loss": loss / total_tokens, "logps/chosen": -loss / total_users},
        )
