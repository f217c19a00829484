"""The softmax of the LM head's logits, with what its gradient needs.

Shapes: S positions that predict, V vocabulary, N predicted tokens; a position may predict several.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class HeadSoftmax:
    """A softmax in which the targets are kept apart from the other tokens.

    Attributes:
        logps: [N] log-probs of the targets.
        complements: [N] 1 - p, summed from the other tokens: exact also where p is near 1.
        counts: [N] how often the position predicts this token.
        others: [S, V] unnormalised probabilities, 0 for the position's targets.
        total: [S] sums of the unnormalised probabilities of all tokens.
    """

    logps: Tensor
    complements: Tensor
    counts: Tensor
    others: Tensor
    total: Tensor


def in_place_softmax(
    logits: Tensor, scale: float, source_of: Tensor, targets: Tensor
) -> HeadSoftmax:
    """Softmax of scale * logits in float32.

    The probabilities overwrite the logits, or their copy in float32, since allocating an array of
    that size takes longer than filling it.

    Args:
        logits: [S, V].
        scale: factor of the logits.
        source_of: [N] position that predicts the token.
        targets: [N] predicted tokens.
    """
    logits = logits.float()
    if scale != 1.0:
        logits *= scale
    predicted = (source_of, targets)
    chosen = logits[predicted]
    largest = logits.amax(dim=-1)
    others = logits.sub_(largest[:, None]).exp_()
    others[predicted] = others.new_zeros(())
    return softmax_of(predicted, chosen, largest, others, others.sum(dim=-1))


def softmax_of(
    predicted: tuple[Tensor, Tensor],
    chosen: Tensor,
    largest: Tensor,
    others: Tensor,
    others_total: Tensor,
) -> HeadSoftmax:
    """The softmax from the exponentials of all tokens but the targets.

    Args:
        predicted: [N] positions and [N] tokens.
        chosen: [N] their logits.
        largest: [S] what the exponents are relative to: each position's largest logit.
        others: [S, V] exponentials, 0 for targets.
        others_total: [S] their sums.
    """
    source_of, targets = predicted
    counts = _counts(source_of * others.shape[-1] + targets)
    exponents = chosen - largest[source_of]
    weights = exponents.exp()
    chosen_total = torch.zeros_like(others_total).index_add_(0, source_of, weights / counts)
    total = others_total + chosen_total
    # Exactly 0 where a position predicts one token.
    other_targets = (chosen_total[source_of] - weights).clamp(min=0)
    return HeadSoftmax(
        logps=exponents - total.log()[source_of],
        complements=(others_total[source_of] + other_targets) / total[source_of],
        counts=counts,
        others=others,
        total=total,
    )


def _counts(keys: Tensor) -> Tensor:
    """How often each element occurs, in float32; the device is not waited for."""
    ordered, order = keys.sort()
    begins = torch.ones_like(ordered)
    begins[1:] = ordered[1:] != ordered[:-1]
    group = begins.cumsum(0) - 1
    sizes = torch.zeros(len(keys), dtype=torch.float32, device=keys.device)
    sizes.index_add_(0, group, torch.ones_like(sizes))
    return torch.empty_like(sizes).index_copy_(0, order, sizes[group])
