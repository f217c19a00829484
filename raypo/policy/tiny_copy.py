"""Tiny copies of decoders: the same class and kinds of layers, with small sizes and random weights.

What a decoder computes is checked on such a copy (`decoder_check`), since the decoder itself may be
large, quantised or partitioned.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from raypo.policy.tiny_sizes import (
    FIRST_TOKEN,
    HEAD_COUNTS,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    INDEX_LISTS,
    LAYER_COUNTS,
    LENGTH,
    PERIODS,
    SHARED_HEADS,
    SIZES,
    VOCABULARY,
)

# Rotary frequencies of these kinds follow the longest row beyond a number of positions.
_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


def tiny_copy(
    model_class: type[nn.Module], config: Any, rope_limit: int | None = None
) -> nn.Module:
    """A decoder in float32 on the CPU, in evaluation mode, with weights that use all of its parts.

    The caller keeps torch's random state.

    Args:
        model_class: class of the decoder.
        config: configuration of the decoder; left as it is.
        rope_limit: positions beyond which length-dependent rotary frequencies change; None is
            more than short rows have.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            model = model_class(tiny_config(config, rope_limit))
            # Buffers of some models keep a data type of their own.
            model = model.to(torch.float32).eval().requires_grad_(False)
            for name, parameter in model.named_parameters():
                _randomise(name, parameter)
    finally:
        torch.set_default_dtype(before)
    return model


def length_dependent_rope(config: Any) -> int | None:
    """Positions up to which rotary frequencies do not depend on the longest row, if they do."""
    limits = []
    for rope in _ropes(config):
        if rope.get("rope_type", rope.get("type")) in _LENGTH_DEPENDENT_ROPE:
            own = rope.get("original_max_position_embeddings")
            own = own or getattr(config, "original_max_position_embeddings", None)
            limits.append(int(own or config.max_position_embeddings))
    return min(limits, default=None)


def tiny_config(config: Any, rope_limit: int | None = None) -> Any:
    """A copy of a configuration with small sizes and each kind of layer twice."""
    config = copy.deepcopy(config)
    for name in ("quantization_config", "pruned_heads"):
        if getattr(config, name, None):
            setattr(config, name, None if name == "quantization_config" else {})
    config._attn_implementation = "eager"
    config.dtype = torch.float32
    _shrink(config, rope_limit or LENGTH)
    return config


def _shrink(config: Any, rope_limit: int) -> None:
    sizes = dict(vars(config))
    for nested in vars(config).values():
        if hasattr(nested, "to_dict") and hasattr(nested, "model_type"):
            _shrink(nested, rope_limit)
    values = dict(vars(config))
    _set_layers(config, values)
    heads = next((values[n] for n in SIZES if n in HEAD_COUNTS and values.get(n)), None)
    for name, value in list(vars(config).items()):
        if name in SHARED_HEADS and value:
            _set(config, name, _shared_heads(value, heads))
        elif name in HEAD_COUNTS and value:
            _set(config, name, _tiny_heads(value))
        elif name in SIZES:
            _set(config, name, _at_most(value, SIZES[name]))
        elif _is_token(name):
            _set(config, name, _token(value))
    _keep_ratios(config, sizes)
    _shrink_rope(config, rope_limit)


def _keep_ratios(config: Any, before: dict[str, Any]) -> None:
    """Sizes that have to be multiples of the hidden size."""
    if before.get("attention_hidden_size"):  # Zamba, RWKV
        times = before["attention_hidden_size"] // before["hidden_size"]
        _set(config, "attention_hidden_size", times * HIDDEN)
    if {"expand", "num_heads", "head_dim"} <= before.keys():  # Mamba 2
        _set(config, "num_heads", config.expand * HIDDEN // HEAD_DIM)


def _set(config: Any, name: str, value: Any) -> None:
    """Set an attribute past validation of single attributes, since others change with it."""
    vars(config)[name] = value


def _at_most(value: Any, limit: int) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_at_most(one, limit) for one in value)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        return value
    return limit if limit in (HIDDEN, VOCABULARY) else min(value, limit)


def _tiny_heads(value: Any) -> Any:
    """A power of two, which divides the hidden size."""
    if isinstance(value, list | tuple):
        return type(value)(_tiny_heads(one) for one in value)
    return 1 if value == 1 else 2 if value < HEADS else HEADS


def _shared_heads(value: Any, heads: Any) -> Any:
    """Heads of keys and values: as many as those of queries, one, or a number between."""
    if isinstance(value, list | tuple):
        return type(value)(_shared_heads(one, heads) for one in value)
    return 1 if value == 1 else _tiny_heads(heads) if value == heads else 2


def _is_token(name: str) -> bool:
    return name.endswith(("_token_id", "_token_index"))


def _token(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_token(one) for one in value)
    return value % FIRST_TOKEN if isinstance(value, int) else value


def _set_layers(config: Any, values: dict[str, Any]) -> None:
    """Each kind of layer twice; lists with a value per layer are cut alike."""
    counts = [name for name in LAYER_COUNTS if isinstance(values.get(name), int)]
    if not counts:
        return
    old = values[counts[0]]
    lists = {
        name: list(value)
        for name, value in values.items()
        if isinstance(value, list | tuple) and len(value) == old and _is_per_layer(name)
    }
    index_lists = [name for name in INDEX_LISTS if values.get(name)]
    # Settings of single layers (Gemma 4).
    spec = values.get("_heterogeneity_spec")
    of_layers = [spec.per_layer_overrides.get(i, {}) for i in range(old)] if spec else []
    columns = [
        *lists.values(),
        *([index in values[name] for index in range(old)] for name in index_lists),
        *([of_layers] if spec else []),
    ]
    kinds = _first_occurrences(zip(*columns, strict=True)) if columns else [0]
    periods = [values[name] for name in PERIODS if isinstance(values.get(name), int)]
    period = min(max([*periods, 1]), 8)
    layers = (kinds * 2) if len(kinds) >= period or columns else kinds * (2 * period)
    for name, value in lists.items():
        _set(config, name, [value[index] for index in layers])
    for name in index_lists:
        _set(config, name, [i for i, layer in enumerate(layers) if layer in values[name]])
    if spec:
        _set(config, "_heterogeneity_spec", None)
        config.per_layer_config = {
            index: {
                name: _at_most(value, SIZES.get(name, value))
                for name, value in of_layers[layer].items()
            }
            for index, layer in enumerate(layers)
            if of_layers[layer]
        }
    for name in counts:
        _set(config, name, min(len(layers), values[name]) if name != counts[0] else len(layers))
    for name, value in values.items():
        if name.startswith("num_kv_shared_layers") and value:
            _set(config, name, len(layers) // 2)


def _is_per_layer(name: str) -> bool:
    """Whether a list of as many values as layers holds one for each, rather than by chance."""
    return "multipliers" not in name and not _is_token(name)


def _first_occurrences(rows: Iterable[Any]) -> list[int]:
    seen: dict[str, int] = {}
    for index, row in enumerate(rows):
        seen.setdefault(repr(row), index)
    return list(seen.values())


def _ropes(config: Any) -> list[dict[str, Any]]:
    """Rotary settings: those of all layers, or of each kind of layer."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    nested = [one for one in rope.values() if isinstance(one, dict)]
    return nested or [rope]


def _shrink_rope(config: Any, rope_limit: int) -> None:
    head_dim = vars(config).get("head_dim") or HEAD_DIM
    for rope in _ropes(config):
        half = int(head_dim * rope.get("partial_rotary_factor", 1.0)) // 2
        for name, value in rope.items():
            if name in ("short_factor", "long_factor") and value:
                rope[name] = [value[round(i * (len(value) - 1) / max(1, half - 1))]
                              for i in range(half)]  # fmt: skip
            elif name == "mrope_section" and value:
                rope[name] = [half - 2 * (half // 3), half // 3, half // 3]
        if rope.get("rope_type", rope.get("type")) not in _LENGTH_DEPENDENT_ROPE:
            continue
        if rope.get("original_max_position_embeddings"):
            rope["original_max_position_embeddings"] = rope_limit
        if getattr(config, "original_max_position_embeddings", None):
            _set(config, "original_max_position_embeddings", rope_limit)
        if "dynamic" in (rope.get("rope_type"), rope.get("type")):
            _set(config, "max_position_embeddings", rope_limit)


def _randomise(name: str, parameter: nn.Parameter) -> None:
    """Weights large enough that each part of a decoder changes the log-probs."""
    if parameter.dim() < 2:
        parameter.add_(0.1 * torch.randn_like(parameter))
    elif parameter.dim() == 2 and "embed" in name:
        torch.nn.init.normal_(parameter, std=1.0)
    else:
        torch.nn.init.normal_(parameter, std=1.5 / math.sqrt(max(parameter.shape[1:])))
