"""Token log-probs from hidden states, with the logits of one chunk of positions at a time.

Shapes: S positions that predict, d hidden size, V vocabulary, N predicted tokens. A prompt's last
position predicts the first token of every response, so N >= S.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Bytes of float32 logits in memory at a time, by device.
_CHUNK_BYTES = {"cpu": 32 << 20, "cuda": 512 << 20}


def token_logps(
    head: nn.Module,
    softcap: float | None,
    hidden: Tensor,
    source_of: Tensor,
    targets: Tensor,
    num_chunks: int | None = None,
) -> Tensor:
    """Log-probs [N] of the predicted tokens, in float32.

    A frozen linear head, as in LoRA training, costs no more than the plain computation: forward
    computes the expected output row p W from the logits, which backward then does not need. The
    chunks of other heads are recomputed in backward.

    Args:
        head: maps hidden states to logits.
        softcap: limits logits by a tanh (Gemma 2); None does not.
        hidden: [S, d] hidden states.
        source_of: [N] index of the hidden state that predicts the token, ascending.
        targets: [N] predicted tokens.
        num_chunks: how often the head is called, where other ranks have to call it as often; None
            is as often as the memory of the logits asks for.
    """
    if softcap is None and _is_frozen_linear(head) and torch.is_grad_enabled():
        logps: Tensor = _FrozenHead.apply(hidden, head.weight, source_of, targets)  # type: ignore[no-untyped-call]
        return logps
    pieces = []
    chunks = num_chunks or num_head_chunks(head, len(hidden), hidden.device)
    for positions, own in _chunks(len(hidden), chunks, source_of):
        arguments = (
            head,
            softcap,
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
    size = -(-num_positions // num_chunks)
    edges = [min(index * size, num_positions) for index in range(num_chunks + 1)]
    cuts = torch.searchsorted(source_of, torch.tensor(edges, device=source_of.device)).tolist()
    return [(slice(edges[i], edges[i + 1]), slice(cuts[i], cuts[i + 1])) for i in range(num_chunks)]


def _chunk_logps(
    head: nn.Module, softcap: float | None, hidden: Tensor, source_of: Tensor, targets: Tensor
) -> Tensor:
    logits: Tensor = head(hidden).float()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if not logits.requires_grad:
        return _in_place_logps(logits, source_of, targets)[0]
    normaliser = torch.logsumexp(logits, dim=-1)
    return logits[source_of, targets] - normaliser[source_of]


def _in_place_logps(
    logits: Tensor, source_of: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs [N], unnormalised probabilities [S, V] and their sums [S].

    The probabilities overwrite the logits, since allocating an array of that size takes longer than
    filling it.
    """
    chosen = logits[source_of, targets]
    largest = logits.amax(dim=-1)
    weights = logits.sub_(largest[:, None]).exp_()
    total = weights.sum(dim=-1)
    logps = chosen - (largest + total.log())[source_of]
    return logps, weights, total


class _FrozenHead(torch.autograd.Function):
    """Log-probs of a linear head without weight gradient.

    d logp_n / d hidden_s = W[target_n] - p_s W for the position s that predicts n, so that forward
    keeps p W [S, d] instead of logits [S, V].
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, source_of: Tensor, targets: Tensor
    ) -> Tensor:
        logps = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        expected = torch.empty_like(hidden)
        chunks = _num_chunks(len(hidden), len(weight), hidden.device)
        for positions, own in _chunks(len(hidden), chunks, source_of):
            logits = (hidden[positions] @ weight.T).float()
            local = source_of[own] - positions.start
            logps[own], weights, total = _in_place_logps(logits, local, targets[own])
            probabilities = weights.div_(total[:, None])
            expected[positions] = probabilities.to(weight.dtype) @ weight
        ctx.save_for_backward(weight, expected, source_of, targets)
        return logps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        weight, expected, source_of, targets = ctx.saved_tensors
        gradient = gradients[0].float()
        per_position = torch.zeros(len(expected), dtype=torch.float32, device=gradient.device)
        per_position.index_add_(0, source_of, gradient)
        hidden = -per_position[:, None] * expected.float()
        hidden.index_add_(0, source_of, gradient[:, None] * weight[targets].float())
        return hidden.to(expected.dtype), None, None, None
