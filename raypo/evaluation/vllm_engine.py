"""A vLLM engine in this process: log-probs of candidates, and greedy answers for benchmarks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class VllmScorer:
    """Scores candidates by the `prompt_logprobs` of prompt + candidate, with prompts cached."""

    def __init__(
        self, model_folder: Path, dtype: str, max_model_len: int, kv_cache_gib: int = 2
    ) -> None:
        """Start the engine, which takes about 40 seconds on a CPU.

        Args:
            model_folder: model without adapter; vLLM's prompt_logprobs fails with adapters on CPU.
            dtype: float32 or bfloat16.
            max_model_len: tokens of prompt and candidate together.
            kv_cache_gib: memory of the KV cache on a CPU, in GiB.
        """
        self._engine = start_engine(model_folder, dtype, max_model_len, kv_cache_gib)

    def __call__(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        """Summed log-probs, [users][responses].

        Prompts run first, so that every candidate finds its prompt in the cache.

        Args:
            prompts: token ids of each user.
            responses: token ids of each user's candidates.
        """
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        cached = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)
        alone = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        self._engine.generate(alone, cached, use_tqdm=False)
        # Without the last two, vLLM recomputes the prompt and fails at cached positions.
        scored = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            prompt_logprobs=0,
            detokenize=False,
            skip_reading_prefix_cache=False,
        )
        complete = [
            TokensPrompt(prompt_token_ids=[*prompt, *answer])
            for prompt, answers in zip(prompts, responses, strict=True)
            for answer in answers
        ]
        outputs = iter(self._engine.generate(complete, scored, use_tqdm=False))
        return [[_sum(next(outputs), answer) for answer in answers] for answers in responses]

    def close(self) -> None:
        """End the engine's process."""
        end_engine(self._engine)


class VllmAnswers:
    """Greedy answers, free or constrained to given texts."""

    def __init__(
        self,
        model_folder: Path,
        dtype: str,
        max_model_len: int,
        adapter: Path | None = None,
        rank: int = 8,
    ) -> None:
        """Start the engine.

        Args:
            model_folder: the base model.
            dtype: float32 or bfloat16.
            max_model_len: tokens of prompt and answer together.
            adapter: PEFT folder of the model that answers; None is the base model.
            rank: of the adapter.
        """
        lora: dict[str, Any] = {}
        self._request: Any = None
        if adapter is not None:
            from vllm.lora.request import LoRARequest

            lora = {"enable_lora": True, "max_lora_rank": max(8, rank), "max_loras": 1}
            self._request = LoRARequest("adapter", 1, str(adapter))
        self._engine = start_engine(model_folder, dtype, max_model_len, **lora)

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        max_tokens: int,
        choices: Sequence[Sequence[str]] | None = None,
    ) -> list[str]:
        """One answer per prompt.

        Args:
            prompts: token ids.
            max_tokens: of an answer.
            choices: texts of each prompt that constrain its answer; None does not constrain.
        """
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import StructuredOutputsParams

        def sampling(index: int) -> SamplingParams:
            allowed = None
            if choices is not None:
                allowed = StructuredOutputsParams(choice=list(choices[index]))
            return SamplingParams(
                temperature=0.0, max_tokens=max_tokens, structured_outputs=allowed
            )

        outputs = self._engine.generate(
            [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts],
            [sampling(index) for index in range(len(prompts))],
            lora_request=self._request,
            use_tqdm=False,
        )
        return [str(output.outputs[0].text) for output in outputs]

    def close(self) -> None:
        """End the engine's process."""
        end_engine(self._engine)


def start_engine(
    model_folder: Path, dtype: str, max_model_len: int, kv_cache_gib: int = 2, **options: Any
) -> Any:
    """A vLLM engine with prefix caching; `options` are further arguments of `vllm.LLM`."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(kv_cache_gib))
    os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
    import torch
    from vllm import LLM

    return LLM(
        model=str(model_folder),
        dtype=dtype,
        max_model_len=max_model_len,
        enable_prefix_caching=True,
        enforce_eager=not torch.cuda.is_available(),
        disable_log_stats=True,
        **options,
    )


def end_engine(engine: Any) -> None:
    """End the process of an engine, which would otherwise keep running beside the next one."""
    engine.llm_engine.engine_core.shutdown()


def _sum(output: Any, answer: Sequence[int]) -> float:
    rows = output.prompt_logprobs[-len(answer) :]
    return float(sum(row[token].logprob for row, token in zip(rows, answer, strict=True)))
