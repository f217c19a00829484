"""TALLRec's pointwise fine-tuning as an objective: "Yes" for the target, "No" for negatives.

TALLRec (arXiv 2305.00447, section 3.2) fine-tunes on the answer to whether a user will like an
item.

Deviation: the source's loss is the likelihood of the answer among all tokens; here it is that among
"Yes" and "No", by which candidates are ranked. Its users have said which items they dislike; here
the items that are answered by "No" are negatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import softplus

from raypo.objectives.batch import GradientScope, ObjectiveOutput, PreferenceBatch
from raypo.objectives.stateless import StatelessObjective


@dataclass
class YesNoObjective(StatelessObjective):
    """Mean negative log-likelihood of "Yes" for the target and "No" for the negatives.

    A batch's log-probs are log-odds: log P("Yes") - log P("No") of each item.
    """

    name: str = "yes-no"
    needs_negatives: bool = True
    gradient_scope: GradientScope = "user"

    def __call__(self, batch: PreferenceBatch) -> ObjectiveOutput:
        """Loss and metrics, from chosen_logps [b] and rejected_logps [b, n], which are log-odds."""
        yes, no = batch.chosen_logps.float(), batch.rejected_logps.float()
        costs = torch.cat([softplus(-yes)[:, None], softplus(no)], dim=1)
        right = torch.cat([(yes > 0)[:, None], no < 0], dim=1).sum()
        total = costs.sum()
        count = right.new_tensor(costs.numel())
        sums = torch.stack([one.double() for one in (total.detach(), right, count)])
        (loss, num_right, num_answers), world_size = self.global_sums(sums)
        return ObjectiveOutput(
            total * (world_size / num_answers),
            {"loss": loss / num_answers, "answers/accuracy": num_right / num_answers},
        )
