"""Log-probs of packed responses; the LM head runs only where a response token is predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from raypo.policy.activation_checkpointing import ActivationCheckpointing, Recompute
from raypo.policy.attention import use_packed_attention
from raypo.policy.attention_masks import Kernel
from raypo.policy.decoder_check import Route, route_of
from raypo.policy.lm_head import num_head_chunks
from raypo.policy.packed import packed_logps
from raypo.policy.packing import PackedResponses
from raypo.policy.projector import Projector
from raypo.policy.unpacked import longest_row, num_tokens, unpacked_logps

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
        self,
        model: nn.Module,
        attention: Kernel | None = None,
        recompute: Recompute = False,
        projector: Projector | None = None,
        offload: bool = False,
    ) -> None:
        """Wrap a decoder, and choose the fastest way to its log-probs that is right (`route_of`).

        Args:
            model: plain or PEFT-wrapped. Where rows are packed, its attention is replaced by
                `packed_attention`, which is SDPA for rows that are not.
            attention: kernel of packed rows; None takes the fastest on the rows' device.
            recompute: layers recomputed in backward: all, none, or `auto`, as many as keep the
                memory of many responses near that of one.
            projector: gives the embeddings of markers in prompts; trained with the model.
            offload: keep the inputs of recomputed layers in the host's memory.

        Raises:
            ValueError: log-probs of this decoder cannot be computed.
        """
        super().__init__()
        self.model = model
        self.projector = projector
        self._attention = attention
        causal_lm = causal_lm_of(model)
        self._route = route_of(causal_lm)
        if self._route.rows == "packed":
            use_packed_attention(causal_lm)
        else:
            causal_lm.set_attn_implementation(self._route.attention)
        self._checkpointing = ActivationCheckpointing(causal_lm, recompute, offload)

    def num_recomputed_layers(self, packed: PackedResponses) -> int:
        """Decoder layers that backward of this batch recomputes."""
        is_packed = self._route_for(packed).rows == "packed"
        return self._checkpointing.num_layers(packed, None if is_packed else num_tokens(packed))

    def num_head_chunks(self, packed: PackedResponses) -> int:
        """Calls of the LM head for this batch."""
        is_packed = self._route_for(packed).rows == "packed"
        positions = packed.sources if is_packed else packed.targets
        head = causal_lm_of(self.model).get_output_embeddings()
        return num_head_chunks(head, len(positions), packed.tokens.device)

    def forward(
        self,
        packed: PackedResponses,
        recomputed_layers: int | None = None,
        head_chunks: int | None = None,
    ) -> Tensor:
        """Summed log-probs [B, M] in float32, or log-odds [B, M / 2] of paired responses.

        Args:
            packed: on the model's device.
            recomputed_layers: decoder layers that backward recomputes.
            head_chunks: calls of the LM head. Where modules communicate between ranks as they run,
                ranks have to agree on both; None is what this batch asks for.

        Raises:
            ValueError: rows are too long for the decoder, or its number of calls depends on them
                where ranks have to agree.
        """
        causal_lm = causal_lm_of(self.model)
        route = self._route_for(packed)
        if route.rows == "by_length" and recomputed_layers is not None:
            raise ValueError(
                f"{causal_lm.config.model_type}: rows of different lengths need different calls, "
                "which ZeRO stage 3 cannot follow; use cluster.zero_stage=2"
            )
        layers = recomputed_layers
        if layers is None:
            layers = self.num_recomputed_layers(packed)
        with self._checkpointing.enabled_for(packed, layers):
            if route.rows == "packed":
                sums = packed_logps(causal_lm, packed, self._attention, head_chunks, self.projector)
            else:
                by_length = route.rows == "by_length"
                sums = unpacked_logps(causal_lm, packed, by_length, head_chunks, self.projector)
        return packed.paired(sums)

    def _route_for(self, packed: PackedResponses) -> Route:
        """The route of this batch, which may depend on its longest row."""
        route = self._route
        if route.beyond is None or route.limit is None or longest_row(packed) <= route.limit:
            return route
        if route.beyond.rows == "refused":
            raise ValueError(
                f"a row has {longest_row(packed)} tokens; beyond {route.limit} log-probs of "
                f"{type(causal_lm_of(self.model)).__name__} are not known: {route.beyond.reason}"
            )
        return route.beyond


def response_logps(
    model: nn.Module, packed: PackedResponses, projector: Projector | None = None
) -> ResponseLogps:
    """Log-probs of every response given its prompt. Each prompt is computed once.

    Args:
        model: transformers decoder, plain or PEFT-wrapped, under DeepSpeed or not.
        packed: result of `pack_responses`; moved to the model's device.
        projector: gives the embeddings of markers, on the model's device.

    Raises:
        ValueError: log-probs of this decoder cannot be computed.
    """
    packed = packed.to(next(model.parameters()).device)
    inner = getattr(model, "module", model)  # the wrapped module of DeepSpeed and DDP
    policy = model if isinstance(inner, PackedPolicy) else None
    policy = policy or PackedPolicy(inner, projector=projector)
    return ResponseLogps(sums=policy(packed), lengths=packed.result_lengths)


def causal_lm_of(model: nn.Module) -> PreTrainedModel:
    """The transformers model without its PEFT wrapper."""
    peft_base = getattr(model, "get_base_model", None)
    return peft_base() if peft_base is not None else model
