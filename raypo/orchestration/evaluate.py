"""`raypo evaluate`: adapters, a recommender or a rule on the same rows with the same metrics."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raypo.assets import resolve_model
from raypo.config import EvaluateConfig, InputError
from raypo.data.dataset import Dataset, load_dataset, sample_rows
from raypo.data.prompts import load_template
from raypo.evaluation.predictions import empty_predictions, write_predictions
from raypo.evaluation.summary import summarise
from raypo.io.files import read_json, value_hash, write_json
from raypo.io.progress import Progress, no_progress
from raypo.io.remote import synced
from raypo.io.run_folder import open_run
from raypo.orchestration.inference.answers import ask_policy
from raypo.policy.adapters import check_adapter
from raypo.recommenders.heuristics import heuristic_scores
from raypo.recommenders.train import load_recommender, score_candidates


@synced
def evaluate(config: EvaluateConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """Evaluate and write `predictions.parquet`, `metrics.json` and `evaluated.json`.

    A finished run is recognised, an interrupted one goes on: answers are kept as they come.

    Returns:
        The metrics; with `adapters`, metrics by adapter name.

    Raises:
        InputError: anything wrong with the inputs, before a model is loaded.
    """
    _check(config)
    dataset = load_dataset(config.data)
    open_run(config.output, config)
    folders = _folders(config)
    if not all((folder / "metrics.json").exists() for folder in folders.values()):
        rows = sample_rows(getattr(dataset, config.split), config.max_rows, config.seed)
        if config.recommender is not None or config.heuristic is not None:
            predictions = {"": _scored(rows, _baseline_scores(config, dataset, rows))}
            about: dict[str, Any] = {}
        else:
            predictions, about = ask_policy(config, dataset, rows, adapters_of(config), progress)
        for name, frame in predictions.items():
            _write(folders[name], frame, dataset, config, _about(about, name, dataset, rows))
        shutil.rmtree(config.output / "partial", ignore_errors=True)
    metrics = {name: read_json(folder / "metrics.json") for name, folder in folders.items()}
    return metrics if config.adapters is not None else dict(metrics[""])


def _check(config: EvaluateConfig) -> None:
    asked = [config.adapters, config.recommender, config.heuristic]
    if sum(value is not None for value in asked) > 1:
        raise InputError("evaluate: give one of adapters, recommender and rule, not several")
    if config.recommender is None and config.heuristic is None:
        resolve_model(config.policy.model)
        load_template(config.policy.prompt)
        for folder in adapters_of(config).values():
            if folder is not None:
                check_adapter(folder)


def adapters_of(config: EvaluateConfig) -> dict[str, Path | None]:
    """Adapter folders by name; '' where one model is evaluated, None for the base model."""
    return dict(config.adapters) if config.adapters is not None else {"": config.policy.adapter}


def _folders(config: EvaluateConfig) -> dict[str, Path]:
    if config.adapters is None:
        return {"": config.output}
    return {name: config.output / name for name in config.adapters}


def _baseline_scores(config: EvaluateConfig, dataset: Dataset, rows: pd.DataFrame) -> np.ndarray:
    if config.recommender is not None:
        return score_candidates(load_recommender(config.recommender), rows)
    assert config.heuristic is not None
    return heuristic_scores(config.heuristic, dataset, rows, config.seed)


def _scored(rows: pd.DataFrame, scores: np.ndarray) -> pd.DataFrame:
    predictions = empty_predictions(rows)
    predictions["logps"] = list(scores.astype(np.float64))
    return predictions


def _about(
    about: Mapping[str, Any], name: str, dataset: Dataset, rows: pd.DataFrame
) -> dict[str, Any]:
    """What a comparison has to know of an evaluation: which rows, and what they cost."""
    sets = [[int(item) for item in candidates] for candidates in rows["candidates"]]
    shared = {key: value for key, value in about.items() if key != "greedy_check"}
    check = about.get("greedy_check", {}).get(name)
    return {
        "dataset": dataset.fingerprint,
        "rows": value_hash(rows["row"].tolist()),
        "candidates": value_hash(sets),
        **shared,
        **({"greedy_check": check} if check else {}),
    }


def _write(
    folder: Path,
    predictions: pd.DataFrame,
    dataset: Dataset,
    config: EvaluateConfig,
    about: Mapping[str, Any],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder, predictions)
    write_json(folder / "evaluated.json", about)
    metrics = summarise(
        predictions,
        dataset.items["popularity"].to_numpy(),
        config.num_bootstrap,
        config.seed,
        length_normalised=config.scorer.length_normalised,
        calibrated=config.recommender is None and config.heuristic is None,
    )
    write_json(folder / "metrics.json", metrics)
