"""The files of an evaluation: one folder per model, and answers of an unfinished one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from raypo.errors import InputError
from raypo.evaluation.predictions import write_predictions
from raypo.evaluation.record import EvaluationRecord
from raypo.io.files import read_json, write_json


@dataclass(frozen=True)
class Outputs:
    """Where an evaluation writes.

    Attributes:
        folder: of the evaluation.
        models: folder of each model by name.
    """

    folder: Path
    models: Mapping[str, Path]

    @property
    def partial(self) -> Path:
        """Folder of the answers so far; removed at the end."""
        return self.folder / "partial"

    def claim(self, inputs: Mapping[str, Any]) -> None:
        """Note what the answers in this folder are made from, when they are begun.

        Args:
            inputs: hashes of data set and models, by name.

        Raises:
            InputError: there are answers or metrics from other inputs.
        """
        file = self.folder / "inputs.json"
        if not file.exists():
            write_json(file, dict(inputs))
            return
        earlier = read_json(file)
        changed = [name for name in {**earlier, **inputs} if earlier.get(name) != inputs.get(name)]
        if changed:
            raise InputError(
                f"{self.folder}: was evaluated, or begun, with another {' and '.join(changed)}; "
                "choose another output folder or remove this one"
            )

    @property
    def finished(self) -> bool:
        """Whether every model has its metrics."""
        return all((folder / "metrics.json").exists() for folder in self.models.values())

    def read_metrics(self) -> dict[str, dict[str, Any]]:
        """`metrics.json` of every model by name."""
        return {name: read_json(folder / "metrics.json") for name, folder in self.models.items()}

    def write(
        self,
        predictions: Mapping[str, pd.DataFrame],
        metrics: Mapping[str, Mapping[str, Any]],
        record: EvaluationRecord,
    ) -> None:
        """Write every model's files, its metrics last: they mark it as finished."""
        for name, folder in self.models.items():
            folder.mkdir(parents=True, exist_ok=True)
            write_predictions(folder, predictions[name])
            write_json(folder / "evaluated.json", record.as_json(name))
            write_json(folder / "metrics.json", metrics[name])
        shutil.rmtree(self.partial, ignore_errors=True)
