"""Attention over packed rows: within a user, a response attends to its prompt and itself.

It is registered with transformers' attention interface, so that any decoder that uses the interface
runs on packed rows. Without a layout in the call it is plain SDPA, so that the same model can still
generate. Two kernels, chosen by device:

- `blocks` (CPU): each user's prompt is one causal call and its responses a second one over prompt
  and responses, so that no pairs of different users are computed. Short blocks are computed by
  `dense_attention`, others by SDPA.
- `flex` (GPU): FlexAttention with a block mask, compiled once for all lengths.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from raypo.policy import dense_attention
from raypo.policy.attention_masks import FLEX_BLOCK, BehindAncestors, Kernel, Layout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "raypo_packed"


def row_multiple() -> int:
    """What the length of packed rows should be a multiple of on this machine."""
    return FLEX_BLOCK if torch.cuda.is_available() else 1


def fastest_kernel(device: torch.device) -> Kernel:
    """The fastest kernel on a device."""
    return "flex" if device.type == "cuda" else "blocks"


def use_packed_attention(model: PreTrainedModel) -> None:
    """Replace a transformers decoder's attention with `packed_attention`.

    Raises:
        ValueError: the decoder computes attention in its own code, which cannot be replaced.
    """
    if model.config._attn_implementation == NAME:
        return
    _register()
    if not getattr(model, "_supports_attention_backend", False):
        raise ValueError(
            f"{type(model).__name__} computes attention in code of its own, which packed rows "
            "cannot reach"
        )
    model.set_attn_implementation(NAME)


@dataclass(frozen=True)
class _Heads:
    """Inputs of one attention call: query [R, H, T, D], key and value [R, H_kv, T, D].

    Attributes:
        scaling: factor of the products; None is D ** -0.5.
        window: positions that a query sees back, itself included; None is unlimited.
        softcap: limits the products by a tanh (Gemma 2); None does not.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float | None
    window: int | None
    softcap: float | None

    def repeated(self) -> _Heads:
        """The same with keys and values repeated for the query heads that share them."""
        groups = self.query.shape[1] // self.key.shape[1]
        if groups == 1:
            return self
        return replace(
            self,
            key=self.key.repeat_interleave(groups, dim=1),
            value=self.value.repeat_interleave(groups, dim=1),
        )


@functools.cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed_layout: Layout | BehindAncestors | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention [R, T, H, D] of queries [R, H, T, D] to keys and values [R, H_kv, T, D].

    The parameters are those of transformers' attention interface.

    Args:
        module: attention layer, whose `num_key_value_groups` says how keys are shared.
        query: [R, H, T, D].
        key: [R, H_kv, T, D].
        value: [R, H_kv, T, D].
        attention_mask: used only without a layout.
        dropout: must be 0 with a layout: log-probs of a randomly masked network are not those of
            the policy.
        scaling: factor of the products; None is D ** -0.5.
        packed_layout: layout of the packed rows, or of one row behind a cached prompt; None is
            plain SDPA.
        sliding_window: positions that a query sees back, itself included.
        softcap: limits the products by a tanh (Gemma 2).
        kwargs: further arguments of the interface. With a layout, only those that change nothing.

    Raises:
        ValueError: with a layout, dropout is not 0 or an argument is not known.
    """
    heads = _Heads(query, key, value, scaling, sliding_window, softcap)
    if packed_layout is None:
        return _plain(module, heads, attention_mask, dropout, kwargs)
    if dropout:
        raise ValueError(f"attention dropout {dropout}: packed log-probs need it at 0")
    _check_arguments(kwargs)
    if isinstance(packed_layout, BehindAncestors):
        return _behind_ancestors(packed_layout, heads), None
    if packed_layout.kernel == "flex":
        return _flex(packed_layout, heads).transpose(1, 2).contiguous(), None
    return _blocks(packed_layout, heads), None


# Arguments of transformers' attention interface that do not change what packed rows compute.
_HARMLESS = frozenset(
    ("cache_position", "layer_idx", "output_attentions", "output_hidden_states",
     "output_router_logits", "position_embeddings", "position_ids", "return_dict", "use_cache")
)  # fmt: skip


def _check_arguments(arguments: dict[str, Any]) -> None:
    """Raise for arguments that would have to change attention over packed rows."""
    for name, value in arguments.items():
        if name == "is_causal" and value is False:
            raise ValueError("packed attention is causal, and got is_causal=False")
        if value is not None and name not in _HARMLESS and name != "is_causal":
            raise ValueError(
                f"packed attention does not know the argument {name}, which may change attention"
            )


def _plain(
    module: torch.nn.Module,
    heads: _Heads,
    attention_mask: Tensor | None,
    dropout: float,
    options: dict[str, Any],
) -> tuple[Tensor, None]:
    """Attention of rows that are not packed, as in generation."""
    softcap = heads.softcap
    if softcap is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output: Tensor = sdpa_attention_forward(
            module,
            heads.query,
            heads.key,
            heads.value,
            attention_mask,
            dropout=dropout,
            scaling=heads.scaling,
            **options,
        )[0]
        return output, None
    additive = None
    if attention_mask is not None:
        additive = torch.zeros_like(attention_mask, dtype=heads.query.dtype)
        additive.masked_fill_(~attention_mask.bool(), float("-inf"))
    heads = heads.repeated()
    capped = _capped(softcap)(
        heads.query,
        heads.key,
        heads.value,
        attn_mask=additive,
        is_causal=additive is None and heads.query.shape[2] > 1,
        scale=heads.scaling,
    )
    return capped.transpose(1, 2).contiguous(), None


def _blocks(layout: Layout, heads: _Heads) -> Tensor:
    """Attention [R, T, H, D] of each user's block by itself."""
    masks = layout.block_masks(heads.window, heads.query.dtype)
    blocks = layout.packed.blocks
    longest = max(block.length for block in blocks)
    is_cpu = heads.query.device.type == "cpu"
    if is_cpu and heads.softcap is None and longest <= dense_attention.MOST_TOKENS:
        scale = heads.query.shape[-1] ** -0.5 if heads.scaling is None else heads.scaling
        masked = [
            dense_attention.MaskedBlock(block.row, block.start, block.prompt, block.length, *mask)
            for block, mask in zip(blocks, masks, strict=True)
        ]
        return dense_attention.attend(heads.query, heads.key, heads.value, masked, scale)
    heads = heads.repeated()
    attend = scaled_dot_product_attention if heads.softcap is None else _capped(heads.softcap)
    rows: list[list[Tensor]] = [[] for _ in range(len(heads.query))]
    for block, (prompt_mask, response_mask) in zip(blocks, masks, strict=True):
        own = (slice(block.row, block.row + 1), slice(None), slice(block.start, block.end))
        q, k, v = heads.query[own], heads.key[own], heads.value[own]
        p = block.prompt
        rows[block.row].append(
            attend(
                q[:, :, :p],
                k[:, :, :p],
                v[:, :, :p],
                attn_mask=prompt_mask,
                is_causal=prompt_mask is None,
                scale=heads.scaling,
            )
        )
        if block.length > p:
            rows[block.row].append(
                attend(q[:, :, p:], k, v, attn_mask=response_mask, scale=heads.scaling)
            )
    width = heads.query.shape[2]
    joined = [torch.cat(parts, dim=2) for parts in rows]
    filled = [pad(row, (0, 0, 0, width - row.shape[2])) for row in joined]
    whole = torch.cat(filled) if len(filled) > 1 else filled[0]
    return whole.transpose(1, 2).contiguous()


def _behind_ancestors(layout: BehindAncestors, heads: _Heads) -> Tensor:
    """Attention [1, C, H, D] of a tree's columns to the prompt and to themselves."""
    heads = heads.repeated()
    attend = scaled_dot_product_attention if heads.softcap is None else _capped(heads.softcap)
    mask = layout.mask(heads.window, heads.query.dtype)
    attended = attend(heads.query, heads.key, heads.value, attn_mask=mask, scale=heads.scaling)
    return attended.transpose(1, 2).contiguous()


def _capped(softcap: float) -> Callable[..., Tensor]:
    """Attention with softcapped products, which SDPA's kernels do not support."""

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        products = softcap * torch.tanh(query @ key.mT * (scale / softcap))
        if is_causal:
            above = torch.ones(products.shape[-2:], dtype=torch.bool, device=query.device).triu(1)
            products = products.masked_fill(above, float("-inf"))
        elif attn_mask is not None:
            products = products + attn_mask
        weights: Tensor = products.float().softmax(dim=-1).to(query.dtype) @ value
        return weights

    return attend


def _flex(layout: Layout, heads: _Heads) -> Tensor:
    softcap, score_mod = heads.softcap, None
    if softcap is not None:

        def score_mod(score: Tensor, *_: Tensor) -> Tensor:
            return softcap * torch.tanh(score / softcap)

    attended: Tensor = _flex_kernel(heads.query.device.type)(
        heads.query,
        heads.key,
        heads.value,
        score_mod=score_mod,
        block_mask=layout.flex_mask(heads.window),
        scale=heads.scaling,
        enable_gqa=heads.query.shape[1] != heads.key.shape[1],
    )
    return attended


@functools.cache
def _flex_kernel(device: str) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    # Compiled once for all lengths, since compiling takes seconds per length.
    kernel: Any = flex_attention
    return torch.compile(kernel, dynamic=True) if device == "cuda" else kernel  # type: ignore[no-any-return]
