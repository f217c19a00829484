"""Scoring candidates by likelihood, with all candidates as responses in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from raypo.policy.attention import row_multiple
from raypo.policy.logps import response_logps
from raypo.policy.packing import Markers, pack_responses
from raypo.policy.projector import Projector

if TYPE_CHECKING:
    from raypo.policy.adapters import AdapterScorer


class Users(Protocol):
    """Token ids of users, as of `raypo.data.tokenisation.EncodedUsers`."""

    @property
    def prompts(self) -> Sequence[Sequence[int]]:
        """One list per user."""

    @property
    def responses(self) -> Sequence[Sequence[Sequence[int]]]:
        """Per user, one list per response, as many for all."""

    @property
    def markers(self) -> Sequence[Markers] | None:
        """Per user, tokens that a projector gives."""

    @property
    def is_pointwise(self) -> bool:
        """Whether responses are pairs."""


def score_users(
    policy: AdapterScorer, name: str, users: Users, pad_token_id: int, batch_size: int
) -> Tensor:
    """`score_responses` by the adapter `name`, with its projector where it has one."""
    projector = policy.projector(name)
    with policy.using(name) as model:
        return score_responses(
            model,
            users.prompts,
            users.responses,
            pad_token_id,
            batch_size,
            users.markers if projector is not None else None,
            projector,
            users.is_pointwise,
        )


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
