"""Rewards: what a response is worth to the policy, before the temperature beta."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Reward:
    """R(y), to be multiplied by beta.

    Attributes:
        of: (logps, lengths, reference logps) -> R, shapes alike.
        needs_reference: reads the reference log-probs.
        needs_lengths: reads the response lengths.
    """

    of: Callable[[Tensor, Tensor | None, Tensor | None], Tensor]
    needs_reference: bool = False
    needs_lengths: bool = False


def _against_reference(logps: Tensor, _: Tensor | None, reference: Tensor | None) -> Tensor:
    assert reference is not None
    return logps - reference


def _free(logps: Tensor, _: Tensor | None, __: Tensor | None) -> Tensor:
    return logps


def _normalised(logps: Tensor, lengths: Tensor | None, _: Tensor | None) -> Tensor:
    assert lengths is not None
    return logps / lengths


REWARDS = {
    # DPO (arXiv 2305.18290, eq. 5) without its constant.
    "reference": Reward(_against_reference, needs_reference=True),
    # NAPO (arXiv 2508.09653): SimPO's reward without the length.
    "free": Reward(_free),
    # SimPO (arXiv 2405.14734, eq. 4).
    "free-normalised": Reward(_normalised, needs_lengths=True),
}
