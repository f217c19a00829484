"""Supervised fine-tuning as an objective: the same training loop, without negatives."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from raypo.objectives.batch import GradientScope, ObjectiveOutput, PreferenceBatch
from raypo.objectives.collectives import Collective

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass
class SftObjective:
    """Token-mean negative log-likelihood of the chosen responses of the global batch."""

    name: str = "sft"
    process_group: ProcessGroup | None = field(default=None, repr=False)
    needs_reference: bool = False
    needs_recommender: bool = False
    needs_negatives: bool = False
    gradient_scope: GradientScope = "none"
    _collective: Collective | None = field(default=None, repr=False)

    @property
    def collective_seconds(self) -> float:
        """Seconds spent so far in reductions."""
        return 0.0 if self._collective is None else self._collective.seconds

    def one_step(self) -> contextlib.AbstractContextManager[None]:
        """Do nothing: there are no moving statistics."""
        return contextlib.nullcontext()

    def of_rank(self) -> SftObjective:
        """A copy for which this rank's batch is the whole batch."""
        return SftObjective(self.name, _collective=Collective(alone=True))

    def train(self) -> None:
        """Do nothing: there are no moving statistics."""

    def eval(self) -> None:
        """Do nothing: there are no moving statistics."""

    def state_dict(self) -> dict[str, float]:
        """Empty: there are no moving statistics."""
        return {}

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """Do nothing: there are no moving statistics."""

    def __call__(self, batch: PreferenceBatch) -> ObjectiveOutput:
        """Loss and metrics, from chosen_logps and chosen_lengths.

        Raises:
            ValueError: chosen_lengths is missing.
        """
        batch.require(self.name, "chosen_lengths")
        assert batch.chosen_lengths is not None
        if self._collective is None:
            self._collective = Collective(self.process_group)
        collective = self._collective
        negative = -batch.chosen_logps.float().sum()
        users, tokens = len(batch.chosen_logps), batch.chosen_lengths.sum().double()
        sums = torch.stack([negative.detach().double(), tokens, torch.tensor(users).to(tokens)])
        loss, total_tokens, total_users = collective.all_reduce_sum(sums).tolist()
        return ObjectiveOutput(
            negative * (collective.world_size / total_tokens),
            {"loss": loss / total_tokens, "logps/chosen": -loss / total_users},
        )
