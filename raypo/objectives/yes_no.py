"""TALLRec's pointwise fine-tuning as an objective: "Yes" for the target, "No" for negatives.

TALLRec (arXiv 2305.00447, section 3.2) fine-tunes on the answer to whether a user will like an
item.

Deviation: the source's loss is the likelihood of the answer among all tokens; here it is that among
"Yes" and "No", by which candidates are ranked. Its users have said which items they dislike; here
the items that are answered by "No" are negatives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import softplus

from raypo.objectives.batch import GradientScope, ObjectiveOutput, PreferenceBatch
from raypo.objectives.collectives import Collective

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass
class YesNoObjective:
    """Mean negative log-likelihood of "Yes" for the target and "No" for the negatives.

    A batch's log-probs are log-odds: log P("Yes") - log P("No") of each item.
    """

    name: str = "yes-no"
    process_group: ProcessGroup | None = field(default=None, repr=False)
    needs_reference: bool = False
    needs_recommender: bool = False
    needs_negatives: bool = True
    gradient_scope: GradientScope = "user"
    _collective: Collective | None = field(default=None, repr=False)

    @property
    def collective_seconds(self) -> float:
        """Seconds spent so far in reductions."""
        return 0.0 if self._collective is None else self._collective.seconds

    def one_step(self) -> contextlib.AbstractContextManager[None]:
        """Do nothing: there are no moving statistics."""
        return contextlib.nullcontext()

    def of_rank(self) -> YesNoObjective:
        """A copy for which this rank's batch is the whole batch."""
        return YesNoObjective(self.name, _collective=Collective(alone=True))

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
        """Loss and metrics, from chosen_logps [b] and rejected_logps [b, n], which are log-odds."""
        if self._collective is None:
            self._collective = Collective(self.process_group)
        collective = self._collective
        yes, no = batch.chosen_logps.float(), batch.rejected_logps.float()
        costs = torch.cat([softplus(-yes)[:, None], softplus(no)], dim=1)
        right = torch.cat([(yes > 0)[:, None], no < 0], dim=1).sum()
        total = costs.sum()
        count = right.new_tensor(costs.numel())
        sums = torch.stack([one.double() for one in (total.detach(), right, count)])
        loss, num_right, num_answers = collective.all_reduce_sum(sums).tolist()
        return ObjectiveOutput(
            total * (collective.world_size / num_answers),
            {"loss": loss / num_answers, "answers/accuracy": num_right / num_answers},
        )
