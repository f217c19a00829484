"""Loading the language model and its LoRA adapter, and saving the adapter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raypo.config import InputError, LoraConfig, PolicyConfig

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_tokenizer(model_folder: Path) -> Any:
    """The tokenizer of a model folder.

    Raises:
        InputError: the tokenizer has no end-of-sequence token, which responses end with.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    if tokenizer.eos_token_id is None:
        raise InputError(f"{model_folder}: its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(
    config: PolicyConfig, model_folder: Path, seed: int, lora_float32: bool = False
) -> nn.Module:
    """The base model with a LoRA adapter that can be trained: a new one, or `config.adapter`.

    Args:
        config: precision, adapter and LoRA settings.
        model_folder: the base model's folder.
        seed: of a new adapter's initial weights.
        lora_float32: keep the adapter's weights in float32 whatever the base's precision. For
            engines that hold no float32 master copy themselves.

    Raises:
        InputError: no adapter at `config.adapter`, or one that does not fit the model.
    """
    import peft

    model = load_base(config, model_folder)
    if config.adapter is not None:
        check_adapter(config.adapter)
        try:
            return peft.PeftModel.from_pretrained(
                model, config.adapter, is_trainable=True, autocast_adapter_dtype=lora_float32
            )
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{config.adapter}: does not fit {model_folder} ({error})") from error
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return peft.get_peft_model(
            model, _peft_config(config.lora), autocast_adapter_dtype=lora_float32
        )


def load_scorer(config: PolicyConfig, model_folder: Path) -> nn.Module:
    """The model for scoring: base and `config.adapter`, frozen, in evaluation mode.

    The adapter is not merged: in bfloat16 the sum would round small changes away.
    """
    model = load_base(config, model_folder)
    if config.adapter is not None:
        import peft

        check_adapter(config.adapter)
        model = peft.PeftModel.from_pretrained(model, config.adapter).eval()
    return model.requires_grad_(False).eval()


def load_base(config: PolicyConfig, model_folder: Path) -> Any:
    """The base model alone, from safetensors only, with masked SDPA attention."""
    from transformers import AutoModelForCausalLM

    logging.getLogger("transformers.modeling_utils").setLevel(logging.ERROR)
    return AutoModelForCausalLM.from_pretrained(
        model_folder,
        dtype=_DTYPES[config.dtype],
        attn_implementation="sdpa",
        use_safetensors=True,
    )


def check_adapter(folder: Path) -> None:
    """Raise InputError unless `folder` holds a PEFT adapter in safetensors."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).exists():
            raise InputError(f"{folder}: not an adapter folder, {name} is missing")


def save_adapter(model: Any, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write the adapter in PEFT's own format.

    Args:
        model: the PEFT model.
        folder: written into; made if it is missing.
        weights: trained parameters by their name in `model.named_parameters()`, where the model's
            own are partitioned or rounded; None takes the model's.
    """
    state = dict(weights) if weights is not None else None
    with warnings.catch_warnings():
        # PEFT looks for a changed vocabulary on a hub; none is reachable and none is needed.
        warnings.filterwarnings("ignore", message="Could not find a config file")
        model.save_pretrained(folder, state_dict=state, save_embedding_layers=False)


def _peft_config(lora: LoraConfig) -> Any:
    import peft

    targets = lora.target_modules
    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
