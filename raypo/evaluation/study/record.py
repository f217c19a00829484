"""`study.json`: which run folder holds the evaluation of each cell and seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raypo.config.study import StudyConfig
from raypo.io.files import read_json, write_json

_FILE = "study.json"


@dataclass
class StudyRecord:
    """Evaluations that are finished.

    Attributes:
        study: its configuration.
        cells: cell -> seed (as text) -> folder below `run_folders`, hash of the cell's settings,
            and seconds that it took.
    """

    study: StudyConfig
    cells: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def open(cls, study: StudyConfig) -> StudyRecord:
        """The record in the study's folder, or an empty one."""
        file = study.output / _FILE
        return cls(study, read_json(file)["cells"] if file.exists() else {})

    def keep(self, cell: str, seed: int, evaluation: Path, seconds: float | None) -> None:
        """Keep a finished evaluation, and the time that it took where something ran for it."""
        seeds = self.cells.setdefault(cell, {})
        before = seeds.get(str(seed), {})
        folder = evaluation.relative_to(self.study.run_folders).as_posix()
        same = before.get("folder") == folder
        seeds[str(seed)] = {
            "folder": folder,
            "settings": self.study.cell_hash(cell, seed),
            "seconds": before.get("seconds") if seconds is None and same else seconds,
        }
        write_json(self.study.output / _FILE, {"cells": self.cells})

    def folder(self, cell: str, seed: int) -> Path | None:
        """The evaluation of a cell and seed; None where it has not run with these settings."""
        kept = self.cells.get(cell, {}).get(str(seed))
        if kept is None or kept["settings"] != self.study.cell_hash(cell, seed):
            return None
        return self.study.run_folders / str(kept["folder"])

    def seconds(self, cell: str) -> float | None:
        """Mean seconds of the cell's seeds; None where nothing ran for it."""
        spent = [one["seconds"] for one in self.cells.get(cell, {}).values() if one["seconds"]]
        return sum(spent) / len(spent) if spent else None
