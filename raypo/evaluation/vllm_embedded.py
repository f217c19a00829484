"""A vLLM engine in this process whose prompts are embeddings: those of vector hints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from raypo.config import PolicyConfig
from raypo.data.hints import Markers
from raypo.evaluation.vllm_engine import end_engine, start_engine
from raypo.policy.model import load_base
from raypo.policy.precision import dtype_name
from raypo.policy.projector import Projector, load_projector

_CHECKED_TOKENS = 8


class PromptEmbeddings:
    """Embeddings of prompts, those of markers by the projectors of adapters."""

    def __init__(
        self, policy: PolicyConfig, model_folder: Path, adapters: Mapping[str, Path | None]
    ) -> None:
        """Load the table of embeddings and the projectors.

        Args:
            policy: precision of the base model.
            model_folder: folder of the base model.
            adapters: name -> adapter folder; None is the base model.
        """
        self._table = load_base(policy, model_folder).get_input_embeddings().requires_grad_(False)
        self._projectors: dict[str, Projector | None] = {
            name: load_projector(folder) if folder is not None else None
            for name, folder in adapters.items()
        }

    @torch.no_grad()
    def __call__(self, name: str, tokens: Sequence[int], markers: Markers | None) -> Tensor:
        """Embeddings [T, d] of a prompt for the model `name`."""
        embeddings: Tensor = self._table(torch.tensor(list(tokens))).clone()
        projector = self._projectors[name]
        if projector is not None and markers is not None:
            made = projector(torch.from_numpy(markers.features))
            embeddings[markers.positions] = made.to(embeddings.dtype)
        return embeddings


@dataclass(frozen=True)
class EmbeddedRequest:
    """A prompt as embeddings, and how it is answered.

    Attributes:
        name: of the model.
        embeddings: [T, d].
        max_tokens: of the answer.
        choices: texts that constrain the answer; None does not constrain.
    """

    name: str
    embeddings: Tensor
    max_tokens: int
    choices: list[str] | None = None


class EmbeddedAnswers:
    """Greedy answers to prompts that are given as embeddings."""

    def __init__(
        self,
        model_folder: Path,
        policy: PolicyConfig,
        adapters: Mapping[str, Path | None],
        rank: int,
        **options: Any,
    ) -> None:
        """Start the engine, and check that it reads embeddings as it reads tokens.

        Args:
            model_folder: folder of the base model.
            policy: precision.
            adapters: name -> adapter folder; None is the base model.
            rank: the largest LoRA rank.
            options: of `start_engine`.

        Raises:
            RuntimeError: a prompt of embeddings has another answer than the same prompt of tokens.
        """
        from vllm.lora.request import LoRARequest

        self.embed = PromptEmbeddings(policy, model_folder, adapters)
        trained = {name: folder for name, folder in adapters.items() if folder is not None}
        self._loras = {
            name: LoRARequest(name or "adapter", number + 1, str(folder))
            for number, (name, folder) in enumerate(trained.items())
        }
        if trained:
            options |= {
                "enable_lora": True,
                "max_lora_rank": rank,
                "max_loras": len(trained),
                # Otherwise the table of embeddings has a LoRA layer too, which fails in batches of
                # prompts that are embeddings and answers that are tokens.
                "lora_target_modules": _target_modules(trained.values()),
            }
        dtype = dtype_name(policy, torch.cuda.is_available())
        self._engine = start_engine(model_folder, dtype, enable_prompt_embeds=True, **options)
        self._check(next(iter(adapters)))

    def __call__(self, requests: Sequence[EmbeddedRequest]) -> list[tuple[str, int]]:
        """Text and number of tokens of each answer.

        Raises:
            ValueError: vLLM refuses a request, such as for its length.
        """
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.sampling_params import StructuredOutputsParams

        parameters = [
            SamplingParams(
                temperature=0.0,
                max_tokens=request.max_tokens,
                structured_outputs=StructuredOutputsParams(choice=request.choices)
                if request.choices is not None
                else None,
            )
            for request in requests
        ]
        prompts: list[Any] = [{"prompt_embeds": request.embeddings} for request in requests]
        loras = [self._loras.get(request.name) for request in requests]
        try:
            outputs = self._engine.generate(prompts, parameters, lora_request=loras, use_tqdm=False)
        except VLLMClientError as error:
            raise ValueError(str(error)) from error
        return [(one.outputs[0].text, len(one.outputs[0].token_ids)) for one in outputs]

    def close(self) -> None:
        """End the engine's process."""
        end_engine(self._engine)

    def _check(self, name: str) -> None:
        from vllm import SamplingParams

        # Some decoders scale embeddings in code that prompts of embeddings do not pass through.
        tokens = list(range(5, 5 + _CHECKED_TOKENS))
        greedy = SamplingParams(temperature=0.0, max_tokens=_CHECKED_TOKENS, ignore_eos=True)
        lora = self._loras.get(name)
        embedded: Any = {"prompt_embeds": self.embed(name, tokens, None)}
        answers = []
        for prompt in (embedded, {"prompt_token_ids": tokens}):
            (output,) = self._engine.generate(prompt, greedy, lora_request=lora, use_tqdm=False)
            answers.append(list(output.outputs[0].token_ids))
        if answers[0] != answers[1]:
            raise RuntimeError(
                "vLLM reads embeddings of this model's tokens otherwise than the tokens "
                f"themselves (it answers {answers[0]} and {answers[1]}); prompts with vectors "
                "cannot be sent to it: set answers=[likelihood]"
            )


def _target_modules(adapters: Iterable[Path]) -> list[str]:
    """Last names of the modules that the adapters change; vLLM joins some of them into one."""
    names: set[str] = set()
    for folder in adapters:
        with safe_open(folder / "adapter_model.safetensors", "pt") as tensors:
            keys = list(tensors.keys())
        names |= {key.split(".lora_")[0].rsplit(".", 1)[-1] for key in keys if ".lora_" in key}
    return sorted(names)
