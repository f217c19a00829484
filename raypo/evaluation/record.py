"""`evaluated.json`: what was evaluated, its cost, and checks of the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from raypo.evaluation.cost import InferenceCost
from raypo.evaluation.greedy_check import GreedyCheck
from raypo.evaluation.requests import Mode
from raypo.io.files import value_hash


@dataclass(frozen=True)
class InferenceRecord:
    """What inference of language models reports beside its answers.

    Attributes:
        cost: of each mode.
        cut_prompts: rows whose prompt lost history items to fit.
        greedy_checks: by model name; empty where none was made.
    """

    cost: Mapping[Mode, InferenceCost]
    cut_prompts: int
    greedy_checks: Mapping[str, GreedyCheck]


@dataclass(frozen=True)
class EvaluationRecord:
    """What a comparison of evaluations has to know.

    Attributes:
        dataset: fingerprint of the data set.
        rows: hash of the row numbers.
        candidates: hash of the candidates of all rows.
        length_normalised: whether candidates are ranked by log-prob per token.
        inference: of language models; None for baselines.
        hints: sentence on the hints in prompts; None without hints.
    """

    dataset: str
    rows: str
    candidates: str
    length_normalised: bool
    inference: InferenceRecord | None
    hints: str | None = None

    def as_json(self, name: str) -> dict[str, Any]:
        """The content of `evaluated.json` of the model `name`."""
        content: dict[str, Any] = {
            "dataset": self.dataset,
            "rows": self.rows,
            "candidates": self.candidates,
            "length_normalised": self.length_normalised,
        }
        if self.hints is not None:
            content["hints"] = self.hints
        if self.inference is None:
            return content
        content["cost"] = {mode: asdict(cost) for mode, cost in self.inference.cost.items()}
        content["cut_prompts"] = self.inference.cut_prompts
        if name in self.inference.greedy_checks:
            check = asdict(self.inference.greedy_checks[name])
            content["greedy_check"] = {k: v for k, v in check.items() if v is not None}
        return content


def candidates_hash(rows: pd.DataFrame) -> str:
    """Hash of the candidates of all rows, in their order."""
    return value_hash([[int(item) for item in candidates] for candidates in rows["candidates"]])
