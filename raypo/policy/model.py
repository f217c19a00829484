"""The base language model: loading, and greedy decoding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from raypo.io.environment import set_deepspeed_accelerator
from raypo.policy.precision import torch_dtype

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel

    from raypo.config import PolicyConfig


def load_base(config: PolicyConfig, model_folder: Path) -> PreTrainedModel:
    """The base model without adapters, loaded from safetensors.

    Attention is SDPA, or eager where a decoder has no other.

    Args:
        config: precision and quantisation.
        model_folder: folder of the base model.
    """
    set_deepspeed_accelerator()
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    options: dict[str, Any] = {}
    if config.quantisation == "4bit":
        options = {
            "quantization_config": _four_bit(torch_dtype(config)),
            "device_map": {"": torch.cuda.current_device()},
        }
    return AutoModelForCausalLM.from_pretrained(
        model_folder,
        dtype=torch_dtype(config),
        use_safetensors=True,
        **options,
    )


def choose_head_kernel(config: PolicyConfig, model: PreTrainedModel) -> None:
    """Let the LM head's log-probs be computed as configured.

    Args:
        config: names the kernel.
        model: the base model, whose log-probs will be asked for.

    Raises:
        InputError: there is no GPU for the kernel.
        RuntimeError: the kernel does not compute what it should.
    """
    if config.head_kernel == "triton":
        from raypo.policy.head_kernel import use_head_kernel

        use_head_kernel(model, torch.device("cuda"))


def _four_bit(dtype: torch.dtype) -> BitsAndBytesConfig:
    """QLoRA's 4-bit NormalFloat (arXiv 2305.14314), computed in `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def greedy_answer(
    model: PreTrainedModel,
    prompt: Sequence[int],
    max_new_tokens: int,
    stop: int,
    embeddings: Tensor | None = None,
) -> list[int]:
    """Token ids of the greedy continuation of a prompt, without the end-of-sequence token.

    Args:
        model: as `AdapterScorer.using` yields it.
        prompt: token ids.
        max_new_tokens: upper limit on the continuation's length.
        stop: id of the end-of-sequence token.
        embeddings: [T, d] of the prompt, which are read instead of its tokens.
    """
    ids = torch.tensor([list(prompt)], device=model.device)
    read = {"input_ids": ids} if embeddings is None else {"inputs_embeds": embeddings[None]}
    with torch.no_grad():
        output = model.generate(
            **read,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            repetition_penalty=1.0,  # a model's own defaults would change the answer
            no_repeat_ngram_size=0,
            pad_token_id=stop,
            eos_token_id=stop,
        )
    # Given embeddings, transformers returns the new tokens alone.
    answer: list[int] = output[0, len(prompt) if embeddings is None else 0 :].tolist()
    return answer[: answer.index(stop)] if stop in answer else answer
