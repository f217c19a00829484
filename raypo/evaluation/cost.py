"""What inference in one mode took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from raypo.data.tokenisation import Encoder
from raypo.evaluation.requests import Requests

_SAMPLED_PROMPTS = 20


@dataclass(frozen=True)
class InferenceCost:
    """Time and tokens of one mode, for all models together.

    Attributes:
        seconds: over all calls, including the start of engines or scorers. Modes that share
            engines share the seconds.
        answers: number of answers.
        answers_per_second: None without answers.
        prompt_tokens: mean of the first prompts.
        answer_tokens: mean of the generated answers; 0 where nothing is generated.
    """

    seconds: float
    answers: int
    answers_per_second: float | None
    prompt_tokens: float
    answer_tokens: float


def count_cut_prompts(requests: Requests, encoder: Encoder) -> int:
    """Number of rows whose prompt loses history items, with candidates in the data set's order.

    Models and modes have the same prompts, so each row counts once.

    Args:
        requests: columns row, permutation, history, candidates, by mode.
        encoder: token ids of prompts.
    """
    if encoder.max_prompt_tokens is None:
        return 0
    rows = pd.concat(list(requests.values()), ignore_index=True)
    rows = rows[rows["permutation"] == 0].drop_duplicates("row")
    before = encoder.cut_prompts
    for history, candidates in zip(rows["history"], rows["candidates"], strict=True):
        encoder.prompt(history, candidates)
    return encoder.cut_prompts - before


def inference_cost(
    requests: pd.DataFrame, answers: pd.DataFrame, encoder: Encoder, seconds: float
) -> InferenceCost:
    """The cost of all answers of a mode.

    Args:
        requests: columns history, candidates.
        answers: one row each, with column tokens where text was generated.
        encoder: token ids of prompts.
        seconds: over all calls.
    """
    sample = requests.head(_SAMPLED_PROMPTS)
    prompts = [
        len(encoder.prompt(history, candidates))
        for history, candidates in zip(sample["history"], sample["candidates"], strict=True)
    ]
    generated = float(answers["tokens"].mean()) if "tokens" in answers else 0.0
    return InferenceCost(
        seconds=round(seconds, 1),
        answers=len(answers),
        answers_per_second=round(len(answers) / seconds, 3) if len(answers) else None,
        prompt_tokens=round(float(np.mean(prompts)), 1),
        answer_tokens=round(generated, 1),
    )
