"""Scoring candidates by likelihood, with all candidates as responses in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raypo.policy.attention import row_multiple
from raypo.policy.logps import response_logps
from raypo.policy.packing import Markers, pack_responses
from raypo.policy.projector import Projector


@torch.no_grad()
def score_responses(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Sequence[int]]],
    pad_token_id: int,
    batch_size: int,
    markers: Sequence[Markers] | None = None,
    projector: Projector | None = None,
    is_paired: bool = False,
) -> Tensor:
    """Summed log-probs [B, M] of every response in nats, in float32 on the CPU.

    Args:
        model: policy in evaluation mode.
        prompts: B lists of token ids.
        responses: B lists of M lists of token ids.
        pad_token_id: fills rows where a kernel needs whole blocks.
        batch_size: users per forward pass.
        markers: of each prompt, the tokens whose embeddings `projector` gives.
        projector: on the model's device.
        is_paired: as of `pack_responses`.
    """
    passes = []
    for start in range(0, len(prompts), batch_size):
        users = slice(start, start + batch_size)
        packed = pack_responses(
            prompts[users],
            responses[users],
            pad_token_id,
            multiple_of=row_multiple(),
            markers=None if markers is None else markers[users],
            is_paired=is_paired,
        )
        passes.append(response_logps(model, packed, projector).sums.cpu())
    return torch.cat(passes) if passes else torch.empty(0, 0)
