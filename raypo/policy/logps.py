"""Log-probs of packed responses; the LM head runs only where a response token is predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from raypo.policy.activation_checkpointing import ActivationCheckpointing, Recompute
from raypo.policy.attention import fastest_kernel, use_packed_attention
from raypo.policy.attention_masks import Kernel, Layout
from raypo.policy.lm_head import LogitScaling, num_head_chunks, token_logps
from raypo.policy.packing import PackedResponses

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ResponseLogps:
    """Log-probs of B users' M responses each.

    Attributes:
        sums: [B, M] float32, summed log-probs of each response's tokens, in nats.
        lengths: [B, M] number of those tokens.
    """

    sums: Tensor
    lengths: Tensor


class PackedPolicy(nn.Module):
    """A causal language model whose forward takes packed rows and returns response log-probs.

    Engines that partition parameters (ZeRO-3) gather them around the root module's forward, so that
    everything that reads weights has to happen inside a module like this.
    """

    def __init__(
        self, model: nn.Module, attention: Kernel | None = None, recompute: Recompute = False
    ) -> None:
        """Wrap a decoder.

        Args:
            model: plain or PEFT-wrapped. Its attention is replaced by `packed_attention`, which is
                SDPA for rows that are not packed.
            attention: kernel; None takes the fastest on the rows' device.
            recompute: layers recomputed in backward: all, none, or `auto`, as many as keep the
                memory of many responses near that of one.

        Raises:
            ValueError: the decoder's attention cannot be replaced.
        """
        super().__init__()
        self.model = model
        self._attention = attention
        use_packed_attention(causal_lm_of(model))
        self._checkpointing = ActivationCheckpointing(causal_lm_of(model), recompute)

    def num_recomputed_layers(self, packed: PackedResponses) -> int:
        """Decoder layers that backward of this batch recomputes."""
        return self._checkpointing.num_layers(packed)

    def num_head_chunks(self, packed: PackedResponses) -> int:
        """Calls of the LM head for this batch."""
        head = causal_lm_of(self.model).get_output_embeddings()
        return num_head_chunks(head, len(packed.sources), packed.tokens.device)

    def forward(
        self,
        packed: PackedResponses,
        recomputed_layers: int | None = None,
        head_chunks: int | None = None,
    ) -> Tensor:
        """Summed log-probs [B, M] in float32.

        Args:
            packed: on the model's device.
            recomputed_layers: decoder layers that backward recomputes.
            head_chunks: calls of the LM head. Where modules communicate between ranks as they run,
                ranks have to agree on both; None is what this batch asks for.
        """
        causal_lm = causal_lm_of(self.model)
        layout = Layout(packed, self._attention or fastest_kernel(packed.tokens.device))
        with self._checkpointing.enabled_for(packed, recomputed_layers):
            hidden = causal_lm.get_decoder()(
                input_ids=packed.tokens,
                # Unused, but its four dimensions keep transformers from making a mask.
                attention_mask=packed.tokens.new_zeros(1, 1, 1, 1),
                position_ids=packed.positions,
                use_cache=False,
                packed_layout=layout,
            ).last_hidden_state
        hidden = hidden.flatten(0, 1).index_select(0, packed.sources)
        logps = token_logps(
            causal_lm.get_output_embeddings(),
            LogitScaling(softcap=getattr(causal_lm.config, "final_logit_softcapping", None)),
            hidden,
            packed.source_of,
            packed.targets,
            head_chunks,
        )
        sums = torch.zeros(packed.lengths.numel(), dtype=torch.float32, device=hidden.device)
        return sums.index_add(0, packed.response_of, logps).view(packed.lengths.shape)


def response_logps(model: nn.Module, packed: PackedResponses) -> ResponseLogps:
    """Log-probs of every response given its prompt. Each prompt is computed once.

    Args:
        model: transformers decoder, plain or PEFT-wrapped, under DeepSpeed or not.
        packed: result of `pack_responses`; moved to the model's device.

    Raises:
        ValueError: the decoder's attention cannot be replaced.
    """
    packed = packed.to(next(model.parameters()).device)
    inner = getattr(model, "module", model)  # the wrapped module of DeepSpeed and DDP
    policy = model if isinstance(inner, PackedPolicy) else PackedPolicy(inner)
    return ResponseLogps(sums=policy(packed), lengths=packed.lengths)


def causal_lm_of(model: nn.Module) -> PreTrainedModel:
    """The transformers model without its PEFT wrapper."""
    peft_base = getattr(model, "get_base_model", None)
    return peft_base() if peft_base is not None else model
