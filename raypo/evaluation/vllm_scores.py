"""Candidates' log-probs by vLLM, for comparison with the packed scorer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class VllmScorer:
    """One engine that scores prompt + candidate by `prompt_logprobs`, prompts from its cache."""

    def __init__(
        self, model_folder: Path, dtype: str, max_model_len: int, kv_cache_gib: int = 2
    ) -> None:
        """Start the engine; about 40 seconds on a CPU.

        Args:
            model_folder: the base model; vLLM's prompt_logprobs does not work with adapters on CPU.
            dtype: float32 or bfloat16.
            max_model_len: tokens of prompt and candidate together.
            kv_cache_gib: on a CPU, memory of the KV cache.
        """
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(kv_cache_gib))
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
        import torch
        from vllm import LLM

        self._engine: Any = LLM(
            model=str(model_folder),
            dtype=dtype,
            max_model_len=max_model_len,
            enable_prefix_caching=True,
            enforce_eager=not torch.cuda.is_available(),
            disable_log_stats=True,
        )

    def __call__(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        """Summed log-probs [users][responses]; prompts first, so that candidates find them."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        first = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)
        asked = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        self._engine.generate(asked, first, use_tqdm=False)
        # Without the last two, vLLM recomputes the prompt and stumbles over cached positions.
        scored = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            prompt_logprobs=0,
            detokenize=False,
            skip_reading_prefix_cache=False,
        )
        whole = [
            TokensPrompt(prompt_token_ids=[*prompt, *answer])
            for prompt, answers in zip(prompts, responses, strict=True)
            for answer in answers
        ]
        outputs = iter(self._engine.generate(whole, scored, use_tqdm=False))
        return [[_sum(next(outputs), answer) for answer in answers] for answers in responses]


def _sum(output: Any, answer: Sequence[int]) -> float:
    rows = output.prompt_logprobs[-len(answer) :]
    return float(sum(row[token].logprob for row, token in zip(rows, answer, strict=True)))
