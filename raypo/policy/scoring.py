"""Scoring candidates by likelihood: one forward pass per user, all candidates as responses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

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

    Users are scored in order of length, so that rows of one pass need little padding.

    Args:
        model: a policy, in evaluation mode.
        prompts: token ids, one list per user.
        responses: token ids, the same number of responses for every user.
        pad_token_id: fills rows up to the longest of a pass.
        batch_size: users per forward pass.
    """
    lengths = [
        len(prompt) + sum(map(len, answers))
        for prompt, answers in zip(prompts, responses, strict=True)
    ]
    order = sorted(range(len(prompts)), key=lengths.__getitem__)
    scores = torch.empty(len(prompts), len(responses[0]) if responses else 0)
    for start in range(0, len(order), batch_size):
        users = order[start : start + batch_size]
        packed = pack_responses(
            [prompts[user] for user in users], [responses[user] for user in users], pad_token_id
        )
        scores[users] = response_logps(model, packed).sums.cpu()
    return scores
