"""Log-probs of packed rows: each prompt is computed once for all of its responses.

Shapes: R rows, T row length, S columns that predict a token, N predicted tokens, B users, M
responses each, d hidden size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from raypo.policy.attention import fastest_kernel
from raypo.policy.attention_masks import Kernel, Layout
from raypo.policy.lm_head import logit_scaling, token_logps
from raypo.policy.packing import PackedResponses
from raypo.policy.projector import Projector, embedded_markers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def packed_logps(
    causal_lm: PreTrainedModel,
    packed: PackedResponses,
    kernel: Kernel | None = None,
    head_chunks: int | None = None,
    projector: Projector | None = None,
) -> Tensor:
    """Summed log-probs [B, M] in float32.

    Args:
        causal_lm: decoder after `use_packed_attention`.
        packed: on the decoder's device.
        kernel: of the attention; None takes the fastest.
        head_chunks: calls of the LM head; None is as many as its logits need.
        projector: gives the embeddings of markers.
    """
    layout = Layout(packed, kernel or fastest_kernel(packed.tokens.device))
    with embedded_markers(causal_lm, packed.marker_columns, projected(projector, packed)):
        hidden = decoder_of(causal_lm)(
            input_ids=packed.tokens,
            # Unused, but its four dimensions keep transformers from making a mask.
            attention_mask=packed.tokens.new_zeros(1, 1, 1, 1),
            position_ids=packed.positions,
            use_cache=False,
            packed_layout=layout,
        ).last_hidden_state
    hidden = hidden.flatten(0, 1).index_select(0, packed.sources)
    return response_sums(causal_lm, hidden, packed, head_chunks)


def projected(projector: Projector | None, packed: PackedResponses) -> Tensor | None:
    """Embeddings [V, d] of a batch's markers; None where it has none.

    Raises:
        ValueError: there are markers but no projector.
    """
    if packed.marker_features is None:
        return None
    if projector is None:
        raise ValueError("the prompts have markers, but there is no projector for them")
    embeddings: Tensor = projector(packed.marker_features)
    return embeddings


def decoder_of(causal_lm: PreTrainedModel) -> Any:
    """The decoder without its LM head."""
    found = causal_lm.get_decoder()
    # Some classes name another module `decoder`, or have no module of their prefix's name.
    is_decoder = found is not causal_lm and hasattr(found, "config")
    return found if is_decoder else getattr(causal_lm, "model", causal_lm.base_model)


def decoder_layers(model: nn.Module) -> list[Any]:
    """The layers of a decoder, plain or PEFT-wrapped; empty where it cannot recompute any."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [one for one in model.modules() if isinstance(one, GradientCheckpointingLayer)]


def response_sums(
    causal_lm: PreTrainedModel,
    hidden: Tensor,
    predictions: PackedResponses,
    head_chunks: int | None,
) -> Tensor:
    """Summed log-probs [B, M] in float32 from the hidden states [S, d] that predict.

    Args:
        causal_lm: the decoder, whose LM head is used.
        hidden: [S, d].
        predictions: names the predicted tokens (`source_of`, `targets`) and their responses.
        head_chunks: calls of the LM head; None is as many as its logits need.
    """
    logps = token_logps(
        causal_lm.get_output_embeddings(),
        logit_scaling(causal_lm.config),
        hidden,
        predictions.source_of,
        predictions.targets,
        head_chunks,
    )
    sums = torch.zeros(predictions.lengths.numel(), dtype=torch.float32, device=hidden.device)
    return sums.index_add(0, predictions.response_of, logps).view(predictions.lengths.shape)
