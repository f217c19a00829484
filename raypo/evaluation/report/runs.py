"""Evaluated models, read from the folders that `raypo evaluate` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from raypo.config.paths import local_path
from raypo.errors import InputError
from raypo.evaluation.predictions import read_predictions
from raypo.io.files import read_json
from raypo.io.run_folder import read_metrics


@dataclass(frozen=True)
class ReportRun:
    """A model in the report.

    Attributes:
        name: as tables show it.
        metrics: content of its `metrics.json`.
        predictions: its `predictions.parquet`, or None.
        training: lines of its `metrics.jsonl`; empty for models that were not trained here.
        evaluated: content of its `evaluated.json`; empty where an earlier version wrote none.
        fusion: content of its `fusion.json`; empty for a model that is not fused from others.
    """

    name: str
    metrics: dict[str, Any]
    predictions: pd.DataFrame | None
    training: list[dict[str, Any]]
    evaluated: dict[str, Any] = field(default_factory=dict)
    fusion: dict[str, Any] = field(default_factory=dict)

    @property
    def length_normalised(self) -> bool:
        """Whether its likelihoods are ranked per token; not in earlier versions' files."""
        return bool(self.evaluated.get("length_normalised", False))


def read_run(name: str, folder: Path, training: Path | None = None) -> ReportRun:
    """Read an evaluated model from its folder.

    Args:
        name: as tables show it.
        folder: with `metrics.json` and `predictions.parquet`.
        training: run folder in which it was trained, for its curves.

    Raises:
        InputError: a file is missing or malformed.
    """
    evaluated, fusion = folder / "evaluated.json", folder / "fusion.json"
    return ReportRun(
        name,
        read_json(folder / "metrics.json"),
        read_predictions(folder),
        read_metrics(training) if training is not None else [],
        read_json(evaluated) if evaluated.exists() else {},
        read_json(fusion) if fusion.exists() else {},
    )


def find_runs(given: Sequence[str]) -> list[tuple[str, Path, Path | None]]:
    """Find every evaluated model in the given folders.

    Args:
        given: `FOLDER` or `NAME=FOLDER`. A folder holds one evaluated model, several of them
            (`raypo evaluate` with adapters), or a whole pipeline. Without a name, a model has its
            folder's name.

    Returns:
        Name, folder and training folder of each model.

    Raises:
        InputError: a folder without an evaluation.
    """
    found = []
    for text in given:
        name, equals, path = text.partition("=")
        folder = local_path(path if equals else text)
        inside = sorted(folder.rglob("metrics.json"), key=_sort_key) if folder.is_dir() else []
        # A fusion evaluates its models on validation rows too, inside its own folder.
        inside = [file for file in inside if not _is_of_fusion(file, folder)]
        if not inside:
            raise InputError(f"{folder}: no evaluated model there (`raypo evaluate` writes one)")
        for file in inside:
            label = file.parent.name if file.parent != folder else folder.resolve().name
            if equals:
                label = name if len(inside) == 1 else f"{name} {label}"
            found.append((label, file.parent, _training_folder(file.parent)))
    return found


def _is_of_fusion(file: Path, given: Path) -> bool:
    parents = [parent for parent in file.parent.parents if parent.is_relative_to(given)]
    return any((parent / "fusion.json").exists() for parent in parents)


def _sort_key(file: Path) -> tuple[str, int, str]:
    """By path; adapters of one evaluation in the order of its configuration."""
    names: list[str] = []
    config = file.parent.parent / "config.yaml"
    if config.exists():
        names = list(yaml.safe_load(config.read_text(encoding="utf-8")).get("adapters") or {})
    name = file.parent.name
    position = names.index(name) if name in names else len(names)
    return str(file.parent.parent), position, name


def _training_folder(folder: Path) -> Path | None:
    """Run folder of the evaluated adapter, by the evaluation's configuration."""
    for config_folder in (folder, folder.parent):
        file = config_folder / "config.yaml"
        if not file.exists():
            continue
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        adapters = config.get("adapters") or {}
        adapter = adapters.get(folder.name) or (config.get("policy") or {}).get("adapter")
        parent = local_path(adapter).parent if adapter else None
        return parent if parent is not None and (parent / "metrics.jsonl").exists() else None
    return None


def data_of(folder: Path) -> Path | None:
    """Prepared data set of an evaluation, by its configuration."""
    for config_folder in (folder, folder.parent):
        file = config_folder / "config.yaml"
        if file.exists():
            data = yaml.safe_load(file.read_text(encoding="utf-8")).get("data")
            return local_path(data) if data else None
    return None
