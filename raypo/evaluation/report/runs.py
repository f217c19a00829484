"""Evaluated models as reports take them, and what folders hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from raypo.config import InputError
from raypo.config.paths import local_path
from raypo.evaluation.predictions import read_predictions
from raypo.evaluation.ranking import row_hits
from raypo.evaluation.significance import Comparison, compare
from raypo.io.files import read_json
from raypo.io.run_folder import read_metrics

_RESAMPLES = 2000


@dataclass(frozen=True)
class ReportRun:
    """A model in the report.

    Attributes:
        name: as the table shows it.
        metrics: content of its `metrics.json`.
        predictions: its `predictions.parquet`, or None.
        training: lines of its `metrics.jsonl`; empty for models that were not trained here.
        about: content of its `evaluated.json`; empty where an earlier version wrote none.
    """

    name: str
    metrics: dict[str, Any]
    predictions: pd.DataFrame | None
    training: list[dict[str, Any]]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def length_normalised(self) -> bool:
        """Whether its candidates are ranked by log-prob per token."""
        return bool(self.about.get("length_normalised", False))


def read_run(name: str, folder: Path, training: Path | None = None) -> ReportRun:
    """An evaluated model from its folder.

    Args:
        name: as the table is to show it.
        folder: with `metrics.json` and `predictions.parquet`.
        training: run folder that it was trained in, for its curves.

    Raises:
        InputError: a file is missing or is not what it should be.
    """
    about = folder / "evaluated.json"
    return ReportRun(
        name,
        read_json(folder / "metrics.json"),
        read_predictions(folder),
        read_metrics(training) if training is not None else [],
        read_json(about) if about.exists() else {},
    )


def find_runs(given: Sequence[str]) -> list[tuple[str, Path, Path | None]]:
    """Every evaluated model in the folders that are given: name, folder, training folder.

    Args:
        given: `FOLDER` or `NAME=FOLDER`, where a folder holds one evaluated model, several (of
            `raypo evaluate` with adapters), or a whole pipeline. Names are those of folders unless
            they are given.

    Raises:
        InputError: a folder that holds no evaluation.
    """
    found = []
    for text in given:
        name, equals, where = text.partition("=")
        folder = local_path(where if equals else text)
        inside = sorted(folder.rglob("metrics.json"), key=_order) if folder.is_dir() else []
        if not inside:
            raise InputError(f"{folder}: no evaluated model there (`raypo evaluate` makes one)")
        for file in inside:
            label = file.parent.name if file.parent != folder else folder.resolve().name
            if equals:
                label = name if len(inside) == 1 else f"{name} {label}"
            found.append((label, file.parent, _trained_in(file.parent)))
    return found


def _order(file: Path) -> tuple[str, int, str]:
    """By place, and adapters of one evaluation in the order that they were named in."""
    names: list[str] = []
    config = file.parent.parent / "config.yaml"
    if config.exists():
        names = list(yaml.safe_load(config.read_text(encoding="utf-8")).get("adapters") or {})
    name = file.parent.name
    position = names.index(name) if name in names else len(names)
    return str(file.parent.parent), position, name


def _trained_in(folder: Path) -> Path | None:
    """The run folder of the adapter that was evaluated, by the evaluation's configuration."""
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
    """The prepared data set that an evaluation was made on, by its configuration."""
    for config_folder in (folder, folder.parent):
        file = config_folder / "config.yaml"
        if file.exists():
            data = yaml.safe_load(file.read_text(encoding="utf-8")).get("data")
            return local_path(data) if data else None
    return None


def check_same_rows(runs: Sequence[ReportRun]) -> None:
    """Refuse to compare models that were asked about different rows or candidates.

    Raises:
        InputError: which two they are.
    """
    first = runs[0]
    for run in runs[1:]:
        if first.predictions is None or run.predictions is None:
            continue
        if not _same(first.predictions, run.predictions):
            raise InputError(
                f"{first.name} and {run.name} were evaluated on different rows or candidates; "
                "compare models that answered the same questions"
            )


def _same(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    if len(first) != len(second) or not np.array_equal(first["row"], second["row"]):
        return False
    pairs = zip(first["candidates"], second["candidates"], strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


def best_of(runs: Sequence[ReportRun], way: str) -> ReportRun | None:
    """The model with the highest HitRatio@1 among those that answer this way."""
    answering = [run for run in runs if way in run.metrics and run.predictions is not None]
    return max(answering, key=lambda run: run.metrics[way]["HitRatio@1"], default=None)


def beside_best(runs: Sequence[ReportRun], way: str) -> dict[str, Comparison]:
    """Every other model beside the best one of this way, corrected for their number, by name."""
    best = best_of(runs, way)
    if best is None or best.predictions is None:
        return {}
    others = [
        run
        for run in runs
        if way in run.metrics and run is not best and run.predictions is not None
    ]
    baseline = row_hits(best.predictions, way, best.length_normalised)
    hits = [
        row_hits(run.predictions, way, run.length_normalised)
        for run in others
        if run.predictions is not None
    ]
    asked = ~np.isnan(np.stack([baseline, *hits])).any(axis=0)
    if not others or not asked.any():
        return {}
    compared = compare([own[asked] for own in hits], baseline[asked], _RESAMPLES, 0)
    return {run.name: one for run, one in zip(others, compared, strict=True)}
