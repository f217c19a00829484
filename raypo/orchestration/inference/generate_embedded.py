"""Answers to prompts with vector hints: a Ray Data pool of vLLM engines that read embeddings.

`ray.data.llm` sends texts and tokens alone, so that these engines are actors of raypo's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import ray.data

from raypo.config import EngineConfig
from raypo.data.hints import Markers
from raypo.evaluation.models import LanguageModels
from raypo.evaluation.requests import max_constrained_tokens
from raypo.evaluation.vllm_embedded import EmbeddedAnswers, EmbeddedRequest
from raypo.orchestration.inference.engine_pool import environment, executor, max_lora_rank
from raypo.orchestration.inference.policy_tasks import engine_resources
from raypo.orchestration.inference.ray_blocks import in_blocks


def run_embedded_pool(
    requests: pd.DataFrame, models: LanguageModels, config: EngineConfig
) -> Iterator[dict[str, Any]]:
    """Answers to requests, as rows of `text` and `tokens`, or `__inference_error__`.

    Args:
        requests: columns batch, mode, name, row, permutation, history, candidates.
        models: what answers them, with vector hints in their prompts.
        config: the pool.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    answered = in_blocks(requests, config.batch_size).map_batches(
        _Engine,
        fn_constructor_args=(models, config),
        batch_size=config.batch_size,
        batch_format="pandas",
        compute=ray.data.ActorPoolStrategy(size=config.engines),
        runtime_env={"env_vars": environment(config)},
        **engine_resources(config, nodes),
    )
    yield from answered.iter_rows()


class _Engine:
    """A vLLM engine and the tables that make its prompts."""

    def __init__(self, models: LanguageModels, config: EngineConfig) -> None:
        self._encoder = models.encoder
        self._max_new_tokens = config.max_new_tokens
        self._engine = EmbeddedAnswers(
            models.folder,
            models.policy,
            models.adapters,
            max_lora_rank(models),
            max_model_len=config.max_model_len,
            kv_cache_gib=config.kv_cache_gib,
            tensor_parallel_size=config.tensor_parallel,
            **executor(config),
        )

    def __call__(self, requests: pd.DataFrame) -> pd.DataFrame:
        users = self._encoder.encode(requests["history"], requests["candidates"])
        assert users.markers is not None
        columns = (requests["name"], requests["mode"], requests["candidates"])
        prepared = [
            self._prepare(str(name), str(mode), [int(item) for item in candidates], tokens, markers)
            for (name, mode, candidates), tokens, markers in zip(
                zip(*columns, strict=True), users.prompts, users.markers, strict=True
            )
        ]
        answers = requests[["batch", "name", "row", "permutation"]].reset_index(drop=True)
        return answers.join(pd.DataFrame(self._answers(prepared)))

    def _prepare(
        self, name: str, mode: str, candidates: list[int], tokens: list[int], markers: Markers
    ) -> EmbeddedRequest:
        embeddings = self._engine.embed(name, tokens, markers)
        if mode != "constrained":
            return EmbeddedRequest(name, embeddings, self._max_new_tokens)
        longest = max(len(self._encoder.response(item)) for item in candidates)
        titles = [" " + self._encoder.titles[item] for item in candidates]
        return EmbeddedRequest(name, embeddings, max_constrained_tokens(longest), titles)

    def _answers(self, requests: list[EmbeddedRequest]) -> list[dict[str, Any]]:
        """Answers, or why there is none: a prompt that is refused does not cost the others."""
        try:
            answered = self._engine(requests)
        except ValueError as error:
            if len(requests) == 1:
                return [{"text": None, "tokens": 0, "__inference_error__": str(error)}]
            return [answer for request in requests for answer in self._answers([request])]
        return [
            {"text": text, "tokens": tokens, "__inference_error__": ""} for text, tokens in answered
        ]
