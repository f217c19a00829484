"""Rewards R(y): the value of a response under the policy, before the temperature beta."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from raypo.objectives.batch import PreferenceBatch


@dataclass(frozen=True)
class Reward:
    """R(y), to be multiplied by beta.

    Attributes:
        kind: name in a composition.
        of: (logps, lengths, reference logps) -> R, shapes alike.
        needs_reference: whether it reads the reference log-probs.
        needs_lengths: whether it reads the response lengths.
    """

    kind: str
    of: Callable[[Tensor, Tensor | None, Tensor | None], Tensor]
    needs_reference: bool = False
    needs_lengths: bool = False

    def __call__(self, batch: PreferenceBatch) -> tuple[Tensor, Tensor]:
        """R of the chosen [b] and of the sampled negatives [b, n], in float32."""
        chosen = self.of(
            batch.chosen_logps.float(), batch.chosen_lengths, batch.reference_chosen_logps
        )
        rejected = self.of(
            batch.rejected_logps.float(), batch.rejected_lengths, batch.reference_rejected_logps
        )
        return chosen, rejected


def _reference(logps: Tensor, _: Tensor | None, reference: Tensor | None) -> Tensor:
    assert reference is not None
    return logps - reference.float()


def _free(logps: Tensor, _: Tensor | None, __: Tensor | None) -> Tensor:
    return logps


def _normalised(logps: Tensor, lengths: Tensor | None, _: Tensor | None) -> Tensor:
    assert lengths is not None
    # A response has at least its end-of-sequence token; only padding by the caller has length 0.
    return logps / lengths.clamp(min=1)


def _reference_normalised(
    logps: Tensor, lengths: Tensor | None, reference: Tensor | None
) -> Tensor:
    return _normalised(_reference(logps, None, reference), lengths, None)


def _likelihood(logps: Tensor, lengths: Tensor | None, _: Tensor | None) -> Tensor:
    return torch.exp(_normalised(logps, lengths, None))


_ALL = (
    # DPO (arXiv 2305.18290, section 4) without its constant.
    Reward("reference", _reference, needs_reference=True),
    # NAPO (arXiv 2508.09653): SimPO's reward without the length.
    Reward("free", _free),
    # SimPO (arXiv 2405.14734, section 2.2).
    Reward("free-normalised", _normalised, needs_lengths=True),
    # The distance that alpha-DPO's margin (arXiv 2410.10148) follows.
    Reward("reference-normalised", _reference_normalised, needs_reference=True, needs_lengths=True),
    # MPPO (arXiv 2412.15244): the geometric mean probability of a token.
    Reward("likelihood", _likelihood, needs_lengths=True),
)
REWARDS = {reward.kind: reward for reward in _ALL}
