"""Inference requests: which rows each model answers, in which mode and candidate permutation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from raypo.evaluation.answer_store import AnswerStore
from raypo.evaluation.candidate_permutations import with_permutations

Mode = Literal["generate", "constrained", "likelihood"]
Requests = Mapping[Mode, pd.DataFrame]


@dataclass(frozen=True)
class RequestOptions:
    """Which requests an evaluation makes of its rows.

    Attributes:
        modes: how each model answers.
        generate_rows: number of leading rows in the modes that generate text; None is all.
        num_permutations: further permutations of the candidates in mode `likelihood`.
        seed: of the permutations.
    """

    modes: Sequence[Mode]
    generate_rows: int | None
    num_permutations: int
    seed: int


@dataclass
class RequestBatch:
    """Requests of one mode with the answers that they have so far.

    Attributes:
        mode: how they are answered; `constrained` allows only the titles of a row's candidates.
        requests: columns name, row, permutation, history, candidates.
        store: answers, those of earlier calls included.
        errors: message by model name and row, of requests that failed twice.
    """

    mode: Mode
    requests: pd.DataFrame
    store: AnswerStore
    errors: dict[tuple[str, int], str] = field(default_factory=dict)


def max_constrained_tokens(longest_response: int) -> int:
    """Limit on the tokens of an answer that is constrained to titles.

    It may be other tokens than the tokenizer's, and more of them.

    Args:
        longest_response: tokens of the longest title it may be.
    """
    return 2 * longest_response + 8


def make_requests(rows: pd.DataFrame, names: Sequence[str], options: RequestOptions) -> Requests:
    """The requests of every mode.

    Args:
        rows: columns row, history, candidates.
        names: of the models.
        options: modes, rows and permutations.

    Returns:
        By mode, one row per model, row and permutation: columns name, row, permutation, history,
        candidates.
    """
    generated = rows.head(options.generate_rows or len(rows))
    permuted = {
        mode: with_permutations(rows, options.num_permutations, options.seed)
        if mode == "likelihood"
        else with_permutations(generated, 0, options.seed)
        for mode in options.modes
    }
    return {
        mode: pd.concat([frame.assign(name=name) for name in names], ignore_index=True)
        for mode, frame in permuted.items()
    }
