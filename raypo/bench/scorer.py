"""Users per second of every mode of answering: packed likelihoods, vLLM's, generated titles."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import spearmanr

from raypo.bench.inputs import InputSettings, load_inputs
from raypo.bench.model_configs import MODEL_CONFIGS
from raypo.config import PolicyConfig
from raypo.data.tokenisation import EncodedUsers, load_tokenizer
from raypo.errors import InputError
from raypo.evaluation.vllm_engine import VllmAnswers, VllmScorer
from raypo.io.files import read_json
from raypo.io.progress import Progress, no_progress
from raypo.policy.adapters import AdapterScorer, merged_model
from raypo.policy.precision import dtype_name
from raypo.policy.scoring import score_responses

MODES = ("packed", "vllm", "generate", "constrained")
_SCORING_MODES = ("packed", "vllm")
_NEW_TOKENS = 24


@dataclass(frozen=True)
class ScorerSettings:
    """What to measure.

    Attributes:
        model: folder or built-in name.
        adapter: PEFT folder; None is the base model. vLLM scores merged weights and generates with
            a LoRA request, as `raypo evaluate` does.
        data: prepared data set; None takes MovieLens-100K.
        num_users: users per round.
        num_candidates: candidates per user.
        batch_size: users per packed forward pass.
        modes: of `MODES`.
        dtype: data type of the model.
        repeats: rounds that count; one more warms up.
        seed: seed of the candidates.
    """

    model: str
    adapter: Path | None
    data: Path | None
    num_users: int
    num_candidates: int
    batch_size: int
    modes: Sequence[str] = MODES
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    repeats: int = 3
    seed: int = 0


@dataclass(frozen=True)
class _Inputs:
    """What every mode is given.

    Attributes:
        policy: model and precision.
        folder: of the base model.
        adapter: PEFT folder; None is the base model.
        pad_token_id: the tokenizer's.
        batch_size: users per packed forward pass.
        max_model_len: tokens of the longest prompt and answer together.
    """

    policy: PolicyConfig
    folder: Path
    adapter: Path | None
    pad_token_id: int
    batch_size: int
    max_model_len: int

    @property
    def dtype(self) -> str:
        return dtype_name(self.policy, torch.cuda.is_available())


@dataclass(frozen=True)
class _Engine:
    """A started engine: answers for the users of a round, and how to stop it."""

    answer: Callable[[EncodedUsers], Any]
    close: Callable[[], None] = lambda: None


def bench_scorer(
    settings: ScorerSettings, progress: Progress = no_progress
) -> list[dict[str, object]]:
    """Answer for new users in every round, one mode after the other.

    vLLM keeps a prompt's cache between the prompt and its candidates, but every round has users of
    its own: cached answers of an earlier round would cost nothing. The start of engines is not
    measured, nor is a first round.

    Args:
        settings: what to measure.
        progress: reports finished rounds.

    Raises:
        InputError: the model has random weights, or the data set is missing.
    """
    if settings.model in MODEL_CONFIGS:
        raise InputError(f"--model {settings.model}: expected a folder or a built-in model")
    inputs, rounds = load_rounds(settings)
    seconds: dict[str, float] = {}
    scores: dict[str, torch.Tensor] = {}
    for mode in settings.modes:
        times, answers = _run(mode, ENGINES[mode](inputs), rounds, progress)
        seconds[mode] = min(times[1:])
        if mode in _SCORING_MODES:
            scores[mode] = torch.cat(answers)
    agreement = _agreement(scores, rounds) if len(scores) == len(_SCORING_MODES) else {}
    vllm = seconds.get("vllm")
    return [
        {
            "mode": mode,
            "users per round": settings.num_users,
            "candidates": settings.num_candidates,
            "seconds/user": round(seconds[mode] / settings.num_users, 3),
            "users/s": round(settings.num_users / seconds[mode], 2),
            "vLLM scoring time / time": None if vllm is None else round(vllm / seconds[mode], 2),
            **{name: value if mode in scores else None for name, value in agreement.items()},
        }
        for mode in settings.modes
    ]


def load_rounds(settings: ScorerSettings) -> tuple[_Inputs, list[EncodedUsers]]:
    """What every mode is given, and the users of each round."""
    num_users = settings.num_users * (settings.repeats + 1)
    loaded = load_inputs(
        InputSettings(
            model=settings.model,
            data=settings.data,
            num_users=num_users,
            num_negatives=settings.num_candidates - 1,
            dtype=settings.dtype,
            seed=settings.seed,
        )
    )
    users = loaded.users
    longest = max(
        len(prompt) + max(map(len, responses))
        for prompt, responses in zip(users.prompts, users.responses, strict=True)
    )
    inputs = _Inputs(
        policy=PolicyConfig(model=settings.model, dtype=settings.dtype),
        folder=loaded.model_folder,
        adapter=settings.adapter,
        pad_token_id=loaded.pad_token_id,
        batch_size=settings.batch_size,
        max_model_len=longest + _NEW_TOKENS,
    )
    parts = [
        slice(start, start + settings.num_users)
        for start in range(0, num_users, settings.num_users)
    ]
    return inputs, [EncodedUsers(users.prompts[part], users.responses[part]) for part in parts]


def _run(
    mode: str, engine: _Engine, rounds: list[EncodedUsers], progress: Progress
) -> tuple[list[float], list[Any]]:
    """Seconds and answers of each round; the engine is closed, to free its cores."""
    times, answers = [], []
    for turn, users in enumerate(rounds):
        progress(turn, len(rounds), f"{mode}, round {turn}")
        started = time.perf_counter()
        answers.append(engine.answer(users))
        times.append(time.perf_counter() - started)
    engine.close()
    return times, answers


def _packed(inputs: _Inputs) -> _Engine:
    scorer = AdapterScorer(inputs.policy, inputs.folder, {"": inputs.adapter})

    def score(users: EncodedUsers) -> torch.Tensor:
        with scorer.using("") as model:
            return score_responses(
                model, users.prompts, users.responses, inputs.pad_token_id, inputs.batch_size
            ).cpu()

    return _Engine(score)


def _vllm(inputs: _Inputs) -> _Engine:
    merged = merged_model(inputs.policy, inputs.folder, inputs.adapter)
    scorer = VllmScorer(merged, inputs.dtype, inputs.max_model_len)
    return _Engine(lambda users: torch.tensor(scorer(users.prompts, users.responses)), scorer.close)


def _generate(inputs: _Inputs) -> _Engine:
    answers = _vllm_answers(inputs)
    return _Engine(lambda users: answers(users.prompts, _NEW_TOKENS), answers.close)


def _constrained(inputs: _Inputs) -> _Engine:
    answers = _vllm_answers(inputs)
    tokenizer = load_tokenizer(inputs.folder)

    def answer(users: EncodedUsers) -> list[str]:
        titles = [[tokenizer.decode(one[:-1]) for one in own] for own in users.responses]
        answered = answers(users.prompts, 2 * _NEW_TOKENS, titles)
        if not all(title in own for title, own in zip(answered, titles, strict=True)):
            raise RuntimeError("a constrained answer is none of its candidates")
        return answered

    return _Engine(answer, answers.close)


def _vllm_answers(inputs: _Inputs) -> VllmAnswers:
    rank = 8
    if inputs.adapter is not None:
        rank = int(read_json(inputs.adapter / "adapter_config.json")["r"])
    return VllmAnswers(inputs.folder, inputs.dtype, inputs.max_model_len, inputs.adapter, rank)


ENGINES: dict[str, Callable[[_Inputs], _Engine]] = {
    "packed": _packed,
    "vllm": _vllm,
    "generate": _generate,
    "constrained": _constrained,
}


def _agreement(scores: dict[str, torch.Tensor], rounds: list[EncodedUsers]) -> dict[str, float]:
    """Agreement of the two scorers, over all users and candidates."""
    packed, vllm = scores["packed"].double().numpy(), scores["vllm"].double().numpy()
    lengths = np.array([[len(one) for one in own] for users in rounds for own in users.responses])
    abs_diff = np.abs(packed - vllm)
    ranks = [float(spearmanr(a, b).statistic) for a, b in zip(packed, vllm, strict=True)]
    return {
        "mean abs log-prob difference per title": round(float(abs_diff.mean()), 4),
        "mean abs log-prob difference per token": round(float((abs_diff / lengths).mean()), 4),
        "mean Spearman correlation": round(float(np.mean(ranks)), 4),
        "fraction with the same top candidate": round(
            float((packed.argmax(1) == vllm.argmax(1)).mean()), 3
        ),
    }
