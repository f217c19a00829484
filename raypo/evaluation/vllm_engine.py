"""A vLLM engine in this process: log-probs of candidates, and greedy answers for benchmarks."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROUNDING = 1e-3  # a certain token may come out slightly above probability 1


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
        self,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[Sequence[int]]],
        names: Sequence[str] | None = None,
    ) -> list[list[float]]:
        """Summed log-probs, [users][responses].

        Prompts run first, so that every candidate finds its prompt in the cache.

        Args:
            prompts: token ids of each user.
            responses: token ids of each user's candidates.
            names: of the users, for errors; None counts them.

        Raises:
            RuntimeError: vLLM gave no log-prob of a token; the message names the user.
        """
        from vllm import SamplingParams

        cached = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)
        self._engine.generate([tokens_prompt(prompt) for prompt in prompts], cached, use_tqdm=False)
        pairs = [
            (prompt, answer)
            for prompt, answers in zip(prompts, responses, strict=True)
            for answer in answers
        ]
        outputs = iter(self._outputs(pairs))
        labels = names or [f"prompt {number}" for number in range(len(prompts))]
        sums = []
        for label, answers in zip(labels, responses, strict=True):
            sums.append(
                [
                    sum_logprobs(
                        next(outputs).prompt_logprobs, answer, f"{label}, response {number}"
                    )
                    for number, answer in enumerate(answers)
                ]
            )
        return sums

    def _outputs(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Any]:
        """Outputs of each (prompt, answer), with log-probs of all the answer's tokens.

        vLLM has no log-probs of tokens whose predecessors it reads from the cache: it leaves
        whatever the memory held there. Cached blocks may reach into an answer that was scored
        before or that begins like another one; such answers are computed again without the cache.
        """
        outputs = self._engine.generate(
            [tokens_prompt(prompt, answer) for prompt, answer in pairs],
            _scoring(read_cache=True),
            use_tqdm=False,
        )
        again = [
            number
            for number, ((prompt, _), output) in enumerate(zip(pairs, outputs, strict=True))
            if output.num_cached_tokens is None or output.num_cached_tokens >= len(prompt)
        ]
        if again:
            complete = self._engine.generate(
                [tokens_prompt(*pairs[number]) for number in again],
                _scoring(read_cache=False),
                use_tqdm=False,
            )
            for number, output in zip(again, complete, strict=True):
                outputs[number] = output
        return list(outputs)

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
        from vllm.sampling_params import StructuredOutputsParams

        def sampling(index: int) -> SamplingParams:
            allowed = None
            if choices is not None:
                allowed = StructuredOutputsParams(choice=list(choices[index]))
            return SamplingParams(
                temperature=0.0, max_tokens=max_tokens, structured_outputs=allowed
            )

        outputs = self._engine.generate(
            [tokens_prompt(prompt) for prompt in prompts],
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


def tokens_prompt(*parts: Sequence[int]) -> Any:
    """A request of vLLM for these tokens."""
    from vllm.inputs import TokensPrompt

    return TokensPrompt(prompt_token_ids=[token for part in parts for token in part])


def _scoring(read_cache: bool) -> Any:
    """Sampling parameters that ask for the log-prob of every token of a request."""
    from vllm import SamplingParams

    # detokenize: tokens of positions that are read from the cache are no valid ids.
    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        prompt_logprobs=0,
        detokenize=False,
        skip_reading_prefix_cache=not read_cache,
    )


def sum_logprobs(
    entries: Sequence[Mapping[int, Any] | None] | None, answer: Sequence[int], name: str
) -> float:
    """Summed log-prob of an answer, from vLLM's `prompt_logprobs` of prompt + answer.

    Args:
        entries: `Logprob` by token id, of each token. One of vLLM's two model runners leaves out
            the tokens that it read from the cache, so positions count from the end.
        answer: token ids.
        name: of the answer, for errors.

    Raises:
        RuntimeError: an entry is missing, of another token, or no log-probability.
    """
    given = list(entries or [])[-len(answer) :]
    if len(given) != len(answer):
        raise RuntimeError(
            f"{name}: vLLM gave log-probs of {len(given)} of its {len(answer)} tokens"
        )
    total = 0.0
    for position, (token, entry) in enumerate(zip(answer, given, strict=True)):
        if entry is None or token not in entry:
            others = "nothing" if entry is None else f"token {', '.join(map(str, entry))}"
            raise RuntimeError(
                f"{name}: expected a log-prob of token {token} at position {position}, but vLLM "
                f"gave one of {others}"
            )
        value = float(entry[token].logprob)
        if not (math.isfinite(value) and value <= ROUNDING):
            raise RuntimeError(f"{name}: log-prob {value} of token {token}")
        total += value
    return total
