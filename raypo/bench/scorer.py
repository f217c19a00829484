"""Users per second of every way of answering: packed likelihoods, vLLM's, and generated titles."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from raypo.bench.inputs import load_inputs
from raypo.bench.model_configs import SHAPES
from raypo.bench.policy import Users
from raypo.config import InputError, PolicyConfig
from raypo.data.tokenisation import load_tokenizer
from raypo.evaluation.vllm_engine import VllmAnswers, VllmScorer
from raypo.io.files import read_json
from raypo.io.progress import Progress, no_progress
from raypo.policy.adapters import AdapterScorer, merged_model
from raypo.policy.scoring import score_responses

WAYS = ("packed", "vllm", "generate", "constrained")
_NEW_TOKENS = 24


@dataclass(frozen=True)
class _Setting:
    """What every way is given: model, adapter, rounds of fresh users, and room for a prompt."""

    policy: PolicyConfig
    folder: Path
    adapter: Path | None
    rounds: list[Users]
    pad: int
    batch: int
    room: int

    @property
    def dtype(self) -> str:
        return self.policy.dtype


def bench_scorer(
    model: str,
    data: Path | None,
    users: int,
    candidates: int,
    batch: int,
    dtype: str,
    repeats: int,
    seed: int,
    ways: Sequence[str] = WAYS,
    adapter: Path | None = None,
    progress: Progress = no_progress,
) -> list[dict[str, object]]:
    """Answer for fresh users in every round, one way after the other.

    vLLM keeps a prompt's cache between the prompt and its candidates, but no round meets a user of
    an earlier one: a cache of whole answers would be no work at all. The start of engines is left
    out, and a first round that does not count.

    Args:
        model: folder or built-in name.
        data: prepared data set; None takes MovieLens-100K.
        users: of a round.
        candidates: of a user.
        batch: users per packed pass.
        dtype: of the model.
        repeats: rounds that count; one more warms up.
        seed: of candidates.
        ways: of `WAYS`.
        adapter: PEFT folder; None is the base model. vLLM scores merged weights and generates with
            a LoRA request, as `raypo evaluate` does.
        progress: told of finished rounds.
    """
    if model in SHAPES:
        raise InputError(f"--model {model}: expected a folder or a built-in model")
    total = users * (repeats + 1)
    _, drawn, pad, folder = load_inputs(model, data, total, candidates - 1, dtype, 8, seed)
    longest = max(
        len(prompt) + max(map(len, answers))
        for prompt, answers in zip(drawn.prompts, drawn.responses, strict=True)
    )
    parts = [slice(start, start + users) for start in range(0, total, users)]
    setting = _Setting(
        policy=PolicyConfig(model=model, dtype=dtype),  # type: ignore[arg-type]
        folder=folder,
        adapter=adapter,
        rounds=[Users(drawn.prompts[part], drawn.responses[part]) for part in parts],
        pad=pad,
        batch=batch,
        room=longest + _NEW_TOKENS,
    )
    seconds: dict[str, float] = {}
    scores: dict[str, torch.Tensor] = {}
    for way in ways:
        taken, answers = _rounds(way, _MAKERS[way](setting), setting.rounds, progress)
        seconds[way] = min(taken[1:])
        if way in ("packed", "vllm"):
            scores[way] = torch.cat(answers)
    agreement = _agreement(scores, setting.rounds) if len(scores) == 2 else {}
    return [
        {
            "way": way,
            "users": users,
            "candidates": candidates,
            "seconds a user": round(seconds[way] / users, 3),
            "users/s": round(users / seconds[way], 2),
            "x vllm": round(seconds["vllm"] / seconds[way], 2) if "vllm" in seconds else None,
            **{name: value if way in scores else None for name, value in agreement.items()},
        }
        for way in ways
    ]


def _rounds(
    way: str,
    made: tuple[Callable[[Users], Any], Callable[[], None]],
    rounds: list[Users],
    progress: Progress,
) -> tuple[list[float], list[Any]]:
    """All rounds of one way; an idle engine beside the next way would take of its cores."""
    answer, close = made
    taken, answers = [], []
    for turn, part in enumerate(rounds):
        progress(turn, len(rounds), f"{way}, round {turn}")
        started = time.perf_counter()
        answers.append(answer(part))
        taken.append(time.perf_counter() - started)
    close()
    return taken, answers


def _packed(setting: _Setting) -> tuple[Callable[[Users], Any], Callable[[], None]]:
    scorer = AdapterScorer(setting.policy, setting.folder, {"": setting.adapter})

    def score(part: Users) -> torch.Tensor:
        with scorer.using("") as model:
            return score_responses(
                model, part.prompts, part.responses, setting.pad, setting.batch
            ).cpu()

    return score, lambda: None


def _vllm(setting: _Setting) -> tuple[Callable[[Users], Any], Callable[[], None]]:
    merged = merged_model(setting.policy, setting.folder, setting.adapter)
    engine = VllmScorer(merged, setting.dtype, setting.room)
    return lambda part: torch.tensor(engine(part.prompts, part.responses)), engine.close


def _generate(setting: _Setting) -> tuple[Callable[[Users], Any], Callable[[], None]]:
    engine = _answers(setting)
    return lambda part: engine(part.prompts, _NEW_TOKENS), engine.close


def _constrained(setting: _Setting) -> tuple[Callable[[Users], Any], Callable[[], None]]:
    engine = _answers(setting)
    tokenizer = load_tokenizer(setting.folder)

    def answer(part: Users) -> list[str]:
        titles = [[tokenizer.decode(one[:-1]) for one in own] for own in part.responses]
        said = engine(part.prompts, 2 * _NEW_TOKENS, titles)
        if not all(one in own for one, own in zip(said, titles, strict=True)):
            raise RuntimeError("a constrained answer is none of its candidates")
        return said

    return answer, engine.close


def _answers(setting: _Setting) -> VllmAnswers:
    rank = 8
    if setting.adapter is not None:
        rank = int(read_json(setting.adapter / "adapter_config.json")["r"])
    return VllmAnswers(setting.folder, setting.dtype, setting.room, setting.adapter, rank)


_MAKERS = {
    "packed": _packed,
    "vllm": _vllm,
    "generate": _generate,
    "constrained": _constrained,
}


def _agreement(scores: dict[str, torch.Tensor], rounds: list[Users]) -> dict[str, float]:
    """How far the two scorers are apart, over all users and candidates."""
    ours, theirs = scores["packed"].double().numpy(), scores["vllm"].double().numpy()
    lengths = np.array([[len(one) for one in own] for part in rounds for own in part.responses])
    apart = np.abs(ours - theirs)
    ranks = [float(spearmanr(a, b).statistic) for a, b in zip(ours, theirs, strict=True)]
    return {
        "apart a title": round(float(apart.mean()), 4),
        "apart a token": round(float((apart / lengths).mean()), 4),
        "Spearman": round(float(np.mean(ranks)), 4),
        "same first": round(float((ours.argmax(1) == theirs.argmax(1)).mean()), 3),
    }
