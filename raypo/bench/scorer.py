"""Ranking candidates by likelihood: the packed scorer beside vLLM's prompt_logprobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from raypo.bench.inputs import load_inputs
from raypo.bench.policy import Users
from raypo.evaluation.vllm_scores import VllmScorer
from raypo.policy.scoring import score_responses
from raypo.runs import Progress, no_progress


def bench_scorer(
    model: str,
    data: Path | None,
    users: int,
    candidates: int,
    batch: int,
    dtype: str,
    repeats: int,
    seed: int,
    progress: Progress = no_progress,
) -> list[dict[str, object]]:
    """Score fresh users in every round with both, the base model in both.

    vLLM keeps a prompt's cache between its prompt and its candidates, but no round meets a user of
    an earlier one: a cache of whole answers would be no work at all.

    Args:
        model: folder or built-in name.
        data: prepared data set; None takes MovieLens-100K.
        users: of a round.
        candidates: of a user.
        batch: users per packed pass.
        dtype: of the model.
        repeats: rounds that count; one more warms up.
        seed: of candidates.
        progress: told of finished rounds.
    """
    rounds = repeats + 1
    policy, drawn, pad, folder = load_inputs(
        model, data, users * rounds, candidates - 1, dtype, 8, seed
    )
    policy = policy.unload().eval()
    longest = max(
        len(prompt) + max(map(len, answers))
        for prompt, answers in zip(drawn.prompts, drawn.responses, strict=True)
    )
    engine = VllmScorer(folder, dtype, max_model_len=longest + 8)
    ways: dict[str, Callable[[Users], torch.Tensor]] = {
        "packed": lambda part: score_responses(policy, part.prompts, part.responses, pad, batch),
        "vllm": lambda part: torch.tensor(engine(part.prompts, part.responses)),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    apart = 0.0
    for turn in range(rounds):
        part = slice(turn * users, (turn + 1) * users)
        own = Users(drawn.prompts[part], drawn.responses[part])
        scores = {}
        for way, score in ways.items():
            started = time.perf_counter()
            scores[way] = score(own)
            if turn:
                seconds[way].append(time.perf_counter() - started)
        apart = max(apart, float((scores["packed"] - scores["vllm"]).abs().max()))
        progress(turn + 1, rounds, "rounds")
    fastest = {way: min(times) for way, times in seconds.items()}
    return [
        {
            "way": way,
            "users": users,
            "candidates": candidates,
            "seconds a user": round(fastest[way] / users, 3),
            "users/s": round(users / fastest[way], 2),
            "x vllm": round(fastest["vllm"] / fastest[way], 2),
            "largest difference": round(apart, 3),
        }
        for way in ways
    ]
