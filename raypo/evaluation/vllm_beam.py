"""Beam search over the titles of a catalogue in vLLM: k items, exact log-probs, no other text.

Every beginning of a level is a request for one token, of which vLLM gives the log-probs of the
title tokens that may follow, over the whole vocabulary. Prompt and beginning come from the prefix
cache, so that a level computes one token for each. Users walk the tree together.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from raypo.evaluation.vllm_engine import ROUNDING, end_engine, start_engine, tokens_prompt
from raypo.policy.title_tree import Beginning, BestTitles, FoundTitles, TitleNode, next_level

MOST_TOKENS = 128  # whose log-probs vLLM gives in one request (MAX_LOGPROB_TOKEN_IDS)


class VllmBeam:
    """An engine that finds the likeliest titles."""

    def __init__(
        self, model_folder: Path, dtype: str, max_model_len: int, kv_cache_gib: int = 2
    ) -> None:
        """Start the engine.

        Args:
            model_folder: model without adapter.
            dtype: float32 or bfloat16.
            max_model_len: tokens of prompt and title together.
            kv_cache_gib: memory of the KV cache on a CPU, in GiB.
        """
        self._engine = start_engine(model_folder, dtype, max_model_len, kv_cache_gib)

    def search(
        self,
        prompts: Sequence[Sequence[int]],
        root: TitleNode,
        k: int,
        width: int | None = None,
        excluded: Sequence[Collection[int]] | None = None,
    ) -> list[FoundTitles]:
        """The k likeliest titles after each prompt that a beam search finds.

        Args:
            prompts: token ids of each user.
            root: of `title_tree`.
            k: titles to find for each user.
            width: beginnings that a level keeps; None keeps all, which makes the result exact.
            excluded: titles that are not found, of each user.

        Raises:
            RuntimeError: vLLM left a log-prob out.
        """
        without = [()] * len(prompts) if excluded is None else excluded
        best = [BestTitles(k, own) for own in without]
        levels: list[list[Beginning]] = [[Beginning(root)] for _ in prompts]
        computed = [0] * len(prompts)
        while any(levels):
            logps = self._children_logps(prompts, levels)
            for user, level in enumerate(levels):
                longer = next_level(level, logps[user], width, best[user])
                levels[user] = [one for _, one in longer]
                computed[user] += len(longer)
        return [own.found(count) for own, count in zip(best, computed, strict=True)]

    def _children_logps(
        self, prompts: Sequence[Sequence[int]], levels: Sequence[Sequence[Beginning]]
    ) -> list[list[list[float]]]:
        """Log-probs of the children of every beginning, [users][level][children]."""
        requests = [
            ([*prompt, *one.tokens], children)
            for prompt, level in zip(prompts, levels, strict=True)
            for one in level
            for children in _parts(list(one.node.children))
        ]
        found = iter(self._logps(requests))
        return [
            [
                [logp for _ in _parts(list(one.node.children)) for logp in next(found)]
                for one in level
            ]
            for level in levels
        ]

    def _logps(self, requests: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        """Log-probs of tokens after other tokens."""
        from vllm import SamplingParams

        outputs = self._engine.generate(
            [tokens_prompt(tokens) for tokens, _ in requests],
            [
                SamplingParams(
                    max_tokens=1, temperature=0.0, logprob_token_ids=asked, detokenize=False
                )
                for _, asked in requests
            ],
            use_tqdm=False,
        )
        return [
            _in_order(output.outputs[0].logprobs, asked)
            for output, (_, asked) in zip(outputs, requests, strict=True)
        ]

    def close(self) -> None:
        """End the engine's process."""
        end_engine(self._engine)


def _parts(tokens: list[int]) -> list[list[int]]:
    return [tokens[start : start + MOST_TOKENS] for start in range(0, len(tokens), MOST_TOKENS)]


def _in_order(entries: Any, asked: Sequence[int]) -> list[float]:
    """The log-probs of tokens from vLLM's answer.

    Raises:
        RuntimeError: one is missing, or no log-probability.
    """
    given = entries[0] if entries else {}
    missing = [token for token in asked if token not in given]
    if missing:
        raise RuntimeError(f"vLLM gave no log-prob of token {missing[0]}, which a title has")
    logps = [float(given[token].logprob) for token in asked]
    for token, logp in zip(asked, logps, strict=True):
        if math.isnan(logp) or logp > ROUNDING:
            raise RuntimeError(f"log-prob {logp} of token {token}")
    return logps
