"""Scoring candidates by likelihood: one forward pass per user, all candidates as responses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raypo.policy.attention import row_multiple
from raypo.policy.logps import response_logps
from raypo.policy.packing import pack_responses


@torch.no_grad()
def score_responses(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Sequence[int]]],
    pad_token_id: int,
    batch_size: int,
) -> Tensor:
    """Summed log-probs [users, responses] of every response, in float32 on the CPU.

    Args:
        model: a policy, in evaluation mode.
        prompts: token ids, one list per user.
        responses: token ids, the same number of responses for every user.
        pad_token_id: fills rows where a kernel wants whole blocks.
        batch_size: users per forward pass.
    """
    passes = []
    for start in range(0, len(prompts), batch_size):
        users = slice(start, start + batch_size)
        packed = pack_responses(
            prompts[users], responses[users], pad_token_id, multiple_of=row_multiple()
        )
        passes.append(response_logps(model, packed).sums.cpu())
    return torch.cat(passes) if passes else torch.empty(0, 0)
