"""Token log-probs from hidden states, with the logits of one chunk of positions at a time.

Shapes: S positions that predict, d hidden size, V vocabulary, N predicted tokens. A prompt's last
position predicts the first token of every response, so N >= S.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from raypo.policy.head_softmax import HeadSoftmax, in_place_softmax

# Bytes of float32 logits in memory at a time, by device.
_CHUNK_BYTES = {"cpu": 32 << 20, "cuda": 512 << 20}


@dataclass(frozen=True)
class LogitScaling:
    """What a model does to its head's output: softcap tanh(scale W h / softcap).

    Attributes:
        scale: factor of the head's output (Granite, Cohere).
        softcap: limits the scaled logits by a tanh (Gemma 2); None does not.
    """

    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits in float32."""
        logits = logits.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits


def logit_scaling(config: Any) -> LogitScaling:
    """The scaling that a transformers configuration describes, as far as its names are known.

    `decoder_check` finds out whether this is all that a decoder does.
    """
    config = config.get_text_config()

    def first(*names: str) -> float | None:
        return next((v for n in names if (v := getattr(config, n, None)) is not None), None)

    factor = first("logit_scale", "lm_head_multiplier")  # Cohere, Falcon H1
    divisor = first("logits_scaling", "logits_mup_width_multiplier")  # Granite, Inkling
    return LogitScaling(
        scale=(1.0 if factor is None else factor) / (divisor or 1.0),
        # Gemma 2, RecurrentGemma, xLSTM
        softcap=first("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap"),
    )


def token_logps(
    head: nn.Module,
    scaling: LogitScaling,
    hidden: Tensor,
    source_of: Tensor,
    targets: Tensor,
    num_chunks: int | None = None,
) -> Tensor:
    """Log-probs [N] of the predicted tokens, in float32.

    A frozen linear head, as in LoRA training, costs no more than the plain computation: forward
    computes what backward needs of the logits, an expected output row for each position. The chunks
    of other heads are recomputed in backward.

    Args:
        head: maps hidden states to logits.
        scaling: what the model does to the head's output.
        hidden: [S, d] hidden states.
        source_of: [N] index of the hidden state that predicts the token, ascending.
        targets: [N] predicted tokens.
        num_chunks: how often the head is called, where other ranks have to call it as often; None
            is as often as the memory of the logits asks for.
    """
    if scaling.softcap is None and _is_frozen_linear(head) and torch.is_grad_enabled():
        logps: Tensor = _FrozenHead.apply(  # type: ignore[no-untyped-call]
            hidden, head.weight, head, scaling.scale, source_of, targets
        )
        return logps
    pieces = []
    chunks = num_chunks or num_head_chunks(head, len(hidden), hidden.device)
    for positions, own in _chunks(len(hidden), chunks, source_of):
        arguments = (
            head,
            scaling,
            hidden[positions],
            source_of[own] - positions.start,
            targets[own],
        )
        if torch.is_grad_enabled():
            pieces.append(checkpoint(_chunk_logps, *arguments, use_reentrant=False))
        else:
            pieces.append(_chunk_logps(*arguments))
    return torch.cat(pieces)


def _is_frozen_linear(head: nn.Module) -> bool:
    return (
        type(head) is nn.Linear
        and head.bias is None
        and not head.weight.requires_grad
        and head.weight.dim() == 2
        and head.weight.numel() > 0  # ZeRO-3 empties it outside the module's own forward
        and not hasattr(head.weight, "ds_id")
    )


def _vocabulary_size(head: Any) -> int:
    return int(getattr(head, "out_features", 0)) or 1 << 16


def num_head_chunks(head: nn.Module, num_positions: int, device: torch.device) -> int:
    """Chunks of positions whose logits fit the memory that is meant for them."""
    return _num_chunks(num_positions, _vocabulary_size(head), device)


def _num_chunks(num_positions: int, vocabulary: int, device: torch.device) -> int:
    chunk_bytes = _CHUNK_BYTES.get(device.type, _CHUNK_BYTES["cpu"])
    return max(1, -(-num_positions // max(1, chunk_bytes // (4 * vocabulary))))


def _chunks(num_positions: int, num_chunks: int, source_of: Tensor) -> list[tuple[slice, slice]]:
    """Slices of positions and of predicted tokens of each chunk; the last ones may be empty."""
    if num_chunks == 1:  # without waiting for the device
        return [(slice(0, num_positions), slice(0, len(source_of)))]
    size = -(-num_positions // num_chunks)
    edges = [min(index * size, num_positions) for index in range(num_chunks + 1)]
    cuts = torch.searchsorted(source_of, torch.tensor(edges, device=source_of.device)).tolist()
    return [(slice(edges[i], edges[i + 1]), slice(cuts[i], cuts[i + 1])) for i in range(num_chunks)]


def _chunk_logps(
    head: nn.Module, scaling: LogitScaling, hidden: Tensor, source_of: Tensor, targets: Tensor
) -> Tensor:
    logits = head(hidden)
    if not logits.requires_grad:
        scale = scaling.scale
        if scaling.softcap is not None:
            logits, scale = scaling(logits), 1.0
        return _logps(head, logits, scale, source_of, targets)
    logits = scaling(logits)
    normaliser = torch.logsumexp(logits, dim=-1)
    return logits[source_of, targets] - normaliser[source_of]


def _softmax(
    head: nn.Module, logits: Tensor, scale: float, source_of: Tensor, targets: Tensor
) -> HeadSoftmax:
    """The softmax, by Triton kernels where `use_head_kernel` asked for them."""
    if getattr(head, "uses_kernel", False):
        from raypo.policy.head_kernel import fused_softmax

        return fused_softmax(logits, scale, source_of, targets)
    return in_place_softmax(logits, scale, source_of, targets)


def _logps(
    head: nn.Module, logits: Tensor, scale: float, source_of: Tensor, targets: Tensor
) -> Tensor:
    if getattr(head, "uses_kernel", False):
        from raypo.policy.head_kernel import fused_logps

        return fused_logps(logits, scale, source_of, targets)
    return in_place_softmax(logits, scale, source_of, targets).logps


class _FrozenHead(torch.autograd.Function):
    """Log-probs of a linear head without weight gradient.

    A position s predicts tokens t_n with gradients g_n, whose sum is G, and gives token v the
    probability p_v. The gradient of its hidden state is

        sum_n g_n W[t_n] - G sum_v p_v W[v]
        = sum_n (g_n (1 - p_n) + (g_n - G / c_n) p_n) W[t_n] - G sum_{v not in t} p_v W[v],

    with c_n the number of predictions at s that are the token t_n. Forward keeps the last sum
    [S, d], and what to divide it by, instead of logits [S, V]. Predicted tokens are not part of it:
    for a confident token both terms of the first line are nearly equal, and in bfloat16 nothing of
    their difference is left. With one prediction, g_n - G / c_n is zero and 1 - p_n keeps its
    digits.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        head: nn.Module,
        scale: float,
        source_of: Tensor,
        targets: Tensor,
    ) -> Tensor:
        logps = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        complements, counts = torch.empty_like(logps), torch.empty_like(logps)
        others = torch.empty_like(hidden)
        totals = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        chunks = _num_chunks(len(hidden), len(weight), hidden.device)
        for positions, own in _chunks(len(hidden), chunks, source_of):
            logits = hidden[positions] @ weight.T
            sources = source_of[own] - positions.start
            softmax = _softmax(head, logits, scale, sources, targets[own])
            logps[own], counts[own] = softmax.logps, softmax.counts
            complements[own], totals[positions] = softmax.complements, softmax.total
            others[positions] = softmax.others.to(weight.dtype) @ weight
        ctx.save_for_backward(
            weight, others, totals, source_of, targets, logps, complements, counts
        )
        ctx.scale = scale
        return logps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        weight, others, totals, source_of, targets, logps, complements, counts = ctx.saved_tensors
        gradient = gradients[0].float() * ctx.scale
        total = torch.zeros(len(others), dtype=torch.float32, device=gradient.device)
        total.index_add_(0, source_of, gradient)
        of_others = gradient - total[source_of] / counts
        coefficients = complements * gradient + logps.exp() * of_others
        hidden = -(total / totals)[:, None] * others.float()
        hidden.index_add_(0, source_of, coefficients[:, None] * weight[targets].float())
        return hidden.to(others.dtype), None, None, None, None, None
