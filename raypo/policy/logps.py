"""Log-probs of packed responses, with the LM head only where a response token is predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from raypo.policy.attention import Kind, Layout, kind_for, use_packed_attention
from raypo.policy.packing import PackedResponses

# Places whose logits exist at once: 1024 x 49,152 float32 values are 0.2 GB.
_CHUNK = 1024


@dataclass(frozen=True)
class ResponseLogps:
    """Of B users with M responses each.

    Attributes:
        sums: [B, M] float32, summed log-probs of each response's tokens.
        lengths: [B, M] number of those tokens.
    """

    sums: Tensor
    lengths: Tensor


class PackedPolicy(nn.Module):
    """A causal language model whose forward takes packed rows and gives response log-probs.

    A module of its own, because engines that partition parameters (ZeRO-3) gather them around the
    root module's forward: everything that touches weights has to happen inside it.
    """

    def __init__(self, model: nn.Module, attention: Kind | None = None) -> None:
        """Wrap a decoder.

        Args:
            model: plain or PEFT-wrapped; its attention is replaced by `packed_attention`, which is
                SDPA wherever nothing is packed.
            attention: None takes what is fastest on the device at hand.

        Raises:
            ValueError: the decoder's attention cannot be replaced.
        """
        super().__init__()
        self.model = model
        self._attention = attention
        use_packed_attention(causal_lm_of(model))

    def forward(self, packed: PackedResponses) -> Tensor:
        """Summed log-probs [B, M] in float32."""
        causal_lm = causal_lm_of(self.model)
        layout = Layout(packed, self._attention or kind_for(packed.tokens.device))
        hidden = causal_lm.get_decoder()(
            input_ids=packed.tokens,
            # Four dimensions keep transformers from making a mask of its own; nothing reads it.
            attention_mask=packed.tokens.new_zeros(1, 1, 1, 1),
            position_ids=packed.positions,
            use_cache=False,
            packed_layout=layout,
        ).last_hidden_state
        hidden = hidden.flatten(0, 1).index_select(0, packed.sources)
        token_logps = _token_logps(causal_lm, hidden, packed)
        sums = torch.zeros(packed.lengths.numel(), dtype=torch.float32, device=hidden.device)
        return sums.index_add(0, packed.response_of, token_logps).view(packed.lengths.shape)


def response_logps(model: nn.Module, packed: PackedResponses) -> ResponseLogps:
    """Log-probs of every response given its prompt, the prompt computed once.

    Args:
        model: a transformers decoder, plain or PEFT-wrapped, under DeepSpeed or not.
        packed: rows of `pack_responses`; moved to the model's device.
    """
    packed = packed.to(next(model.parameters()).device)
    inner = getattr(model, "module", model)  # DeepSpeed's and DDP's name for what they wrap
    policy = model if isinstance(inner, PackedPolicy) else PackedPolicy(inner)
    return ResponseLogps(sums=policy(packed), lengths=packed.lengths)


def causal_lm_of(model: nn.Module) -> Any:
    """The transformers model itself, without what PEFT wraps around it."""
    peft_base = getattr(model, "get_base_model", None)
    return peft_base() if peft_base is not None else model


def _token_logps(causal_lm: Any, hidden: Tensor, packed: PackedResponses) -> Tensor:
    """Log-probs [N] of the predicted tokens from the hidden states [S, d] that predict them.

    Chunk by chunk over the places; with more than one chunk a chunk's logits are dropped and
    computed again in backward, so that at most one chunk of them exists at a time.
    """
    head = causal_lm.get_output_embeddings()
    cap = getattr(causal_lm.config, "final_logit_softcapping", None)
    if len(hidden) <= _CHUNK:
        return _chunk_logps(head, cap, hidden, packed.source_of, packed.targets)
    pieces = []
    for start in range(0, len(hidden), _CHUNK):
        first, last = torch.searchsorted(
            packed.source_of, torch.tensor([start, start + _CHUNK], device=hidden.device)
        ).tolist()
        local = packed.source_of[first:last] - start
        arguments = (head, cap, hidden[start : start + _CHUNK], local, packed.targets[first:last])
        if torch.is_grad_enabled():
            pieces.append(checkpoint(_chunk_logps, *arguments, use_reentrant=False))
        else:
            pieces.append(_chunk_logps(*arguments))
    return torch.cat(pieces)


def _chunk_logps(
    head: nn.Module, cap: float | None, hidden: Tensor, source_of: Tensor, targets: Tensor
) -> Tensor:
    logits: Tensor = head(hidden).float()
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    normaliser = torch.logsumexp(logits, dim=-1)
    return logits[source_of, targets] - normaliser[source_of]
