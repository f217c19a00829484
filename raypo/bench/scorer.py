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

    The ways run one after the other. vLLM keeps a prompt's cache between the prompt and its
    candidates, but no round meets a user of an earlier one: a cache of whole answers would be no
    work at all.

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
    parts = [slice(turn * users, (turn + 1) * users) for turn in range(rounds)]
    own = [Users(drawn.prompts[part], drawn.responses[part]) for part in parts]
    seconds: dict[str, list[float]] = {}
    scores: dict[str, torch.Tensor] = {}

    def run(way: str, score: Callable[[Users], torch.Tensor]) -> None:
        """All rounds of one way: an idle engine beside the other would take of its cores."""
        taken, scored = [], []
        for turn, part in enumerate(own):
            progress(turn, rounds, f"{way}, round {turn}")
            started = time.perf_counter()
            scored.append(score(part))
            taken.append(time.perf_counter() - started)
        seconds[way], scores[way] = taken[1:], torch.cat(scored)

    run("packed", lambda part: score_responses(policy, part.prompts, part.responses, pad, batch))
    engine = VllmScorer(folder, dtype, max_model_len=longest + 8)
    run("vllm", lambda part: torch.tensor(engine(part.prompts, part.responses)))
    apart = (scores["packed"] - scores["vllm"]).abs()
    same_first = (scores["packed"].argmax(1) == scores["vllm"].argmax(1)).float().mean()
    fastest = {way: min(times) for way, times in seconds.items()}
    return [
        {
            "way": way,
            "users": users,
            "candidates": candidates,
            "seconds a user": round(fastest[way] / users, 3),
            "users/s": round(users / fastest[way], 2),
            "x vllm": round(fastest["vllm"] / fastest[way], 2),
            "mean difference": round(float(apart.mean()), 4),
            "same first": round(float(same_first), 3),
        }
        for way in seconds
    ]
