"""What an evaluation measures: a base model with its adapters, or a baseline."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from raypo.config import PolicyConfig
from raypo.data.tokenisation import Encoder


@dataclass(frozen=True)
class LanguageModels:
    """A base model with the adapters that are evaluated on it.

    Attributes:
        folder: of the base model.
        adapters: name -> PEFT adapter folder; None is the base model without adapter.
        policy: precision of the base model.
        encoder: token ids of prompts and responses.
    """

    folder: Path
    adapters: Mapping[str, Path | None]
    policy: PolicyConfig
    encoder: Encoder

    @property
    def names(self) -> list[str]:
        """Names of the models in the order given."""
        return list(self.adapters)

    @property
    def adapter_folders(self) -> list[Path]:
        """Folders of the models that have an adapter."""
        return [folder for folder in self.adapters.values() if folder is not None]

    def subset(self, names: Collection[str]) -> LanguageModels:
        """Only the models with these names."""
        chosen = {name: folder for name, folder in self.adapters.items() if name in names}
        return replace(self, adapters=chosen)


@dataclass(frozen=True)
class Baseline:
    """A recommender or heuristic baseline.

    Attributes:
        score: scores of the candidates [rows, candidates] of rows with columns history, candidates.
    """

    score: Callable[[pd.DataFrame], np.ndarray]

    @property
    def names(self) -> list[str]:
        """The empty name: a baseline is evaluated alone."""
        return [""]

    def answers(self, requests: pd.DataFrame) -> pd.DataFrame:
        """Answers to requests (columns name, row, permutation, history, candidates).

        Returns:
            Columns name, row, permutation, logps (the scores) and lengths (None).
        """
        answers = requests[["name", "row", "permutation"]].copy()
        answers["logps"] = list(self.score(requests).astype(np.float64))
        answers["lengths"] = None
        return answers
