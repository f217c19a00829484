"""Loading the language model and its LoRA adapter, and saving the adapter."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raypo.config import InputError, LoraConfig, PolicyConfig, cache_folder
from raypo.runs import file_hash, value_hash

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def tell_deepspeed_the_device() -> None:
    """Where there is no GPU, say so: DeepSpeed, which transformers imports, warns otherwise."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def load_tokenizer(model_folder: Path) -> Any:
    """The tokenizer of a model folder.

    Raises:
        InputError: the tokenizer has no end-of-sequence token, which responses end with.
    """
    tell_deepspeed_the_device()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    if tokenizer.eos_token_id is None:
        raise InputError(f"{model_folder}: its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(
    config: PolicyConfig, model_folder: Path, seed: int, lora_float32: bool = False
) -> Any:
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
    model = load_base(config, model_folder)
    if config.adapter is not None:
        import peft

        check_adapter(config.adapter)
        try:
            return peft.PeftModel.from_pretrained(
                model, config.adapter, is_trainable=True, autocast_adapter_dtype=lora_float32
            )
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{config.adapter}: does not fit {model_folder} ({error})") from error
    return add_adapter(model, config.lora, seed, lora_float32)


def add_adapter(model: Any, lora: LoraConfig, seed: int, lora_float32: bool) -> Any:
    """Wrap a decoder with a new adapter, as `load_policy` does."""
    import peft

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return peft.get_peft_model(model, _peft_config(lora), autocast_adapter_dtype=lora_float32)


def load_base(config: PolicyConfig, model_folder: Path) -> Any:
    """The base model alone, from safetensors only, with masked SDPA attention."""
    tell_deepspeed_the_device()
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    options: dict[str, Any] = {}
    if config.quantisation == "4bit":
        options = {
            "quantization_config": _four_bit(_DTYPES[config.dtype]),
            "device_map": {"": torch.cuda.current_device()},
        }
    return AutoModelForCausalLM.from_pretrained(
        model_folder,
        dtype=_DTYPES[config.dtype],
        attn_implementation="sdpa",
        use_safetensors=True,
        **options,
    )


def _four_bit(dtype: torch.dtype) -> Any:
    """QLoRA's 4-bit NormalFloat (arXiv 2305.14314), computed in `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
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


class AdapterScorer:
    """One base model in memory with several adapters, for scoring."""

    def __init__(
        self, config: PolicyConfig, model_folder: Path, adapters: Mapping[str, Path | None]
    ) -> None:
        """Load the base model and every adapter; None stands for the base model itself."""
        import peft

        self._folders = dict(adapters)
        self._model = load_base(config, model_folder)
        trained = {name: folder for name, folder in adapters.items() if folder is not None}
        for index, folder in enumerate(trained.values()):
            check_adapter(folder)
            label = _label(folder)
            if index == 0:
                self._model = peft.PeftModel.from_pretrained(
                    self._model, folder, adapter_name=label, autocast_adapter_dtype=False
                )
            elif label not in self._model.peft_config:
                self._model.load_adapter(folder, label, autocast_adapter_dtype=False)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = self._model.requires_grad_(False).eval().to(device)

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[nn.Module]:
        """The model as the adapter `name` makes it, for the length of the block."""
        folder = self._folders[name]
        if folder is not None:
            self._model.set_adapter(_label(folder), inference_mode=True)
            yield self._model
        elif hasattr(self._model, "disable_adapter"):
            with self._model.disable_adapter():
                yield self._model
        else:
            yield self._model


def _label(folder: Path) -> str:
    """PEFT names adapters after module keys, in which dots and slashes mean something."""
    return value_hash(str(folder.resolve()))[:16]


def merged_model(config: PolicyConfig, model_folder: Path, adapter: Path | None) -> Path:
    """A folder with the adapter's weights added to the base model's, made once and kept.

    For engines that serve a model without adapters. Merging rounds to the base model's precision.

    Args:
        config: precision of the base model.
        model_folder: the base model; it is returned as it is where there is no adapter.
        adapter: PEFT adapter folder.
    """
    if adapter is None:
        return model_folder
    import peft

    check_adapter(adapter)
    weights = file_hash(adapter / "adapter_model.safetensors")
    key = value_hash([str(model_folder.resolve()), weights, config.dtype])
    folder = cache_folder() / "merged" / key[:16]
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        temporary = Path(name) / "model"
        model = peft.PeftModel.from_pretrained(load_base(config, model_folder), adapter)
        model.merge_and_unload().save_pretrained(temporary)
        load_tokenizer(model_folder).save_pretrained(temporary)
        if not folder.exists():
            temporary.rename(folder)
    return folder


def greedy_answer(model: Any, prompt: Sequence[int], max_new_tokens: int, stop: int) -> list[int]:
    """The policy's own greedy continuation of a prompt, without the end-of-sequence token.

    Args:
        model: of `AdapterScorer.using`.
        prompt: token ids.
        max_new_tokens: at most so many.
        stop: the end-of-sequence token.
    """
    ids = torch.tensor([list(prompt)], device=model.device)
    with torch.no_grad():
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=stop,
            eos_token_id=stop,
        )
    answer: list[int] = output[0, len(prompt) :].tolist()
    return answer[: answer.index(stop)] if stop in answer else answer
