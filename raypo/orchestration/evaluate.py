"""`raypo evaluate`: adapters, a recommender or a rule on the same rows with the same metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raypo.config import EvaluateConfig, InputError
from raypo.data.assets import resolve_model
from raypo.data.dataset import Dataset, load_dataset, sample_rows
from raypo.data.prompts import load_template
from raypo.evaluation.answers import match_answer
from raypo.evaluation.metrics import summarise
from raypo.evaluation.predictions import empty_predictions, write_predictions
from raypo.evaluation.rules import popularity_scores, random_scores
from raypo.orchestration.cluster import connect
from raypo.policy.loading import check_adapter
from raypo.recommenders.train import load_recommender, score_candidates
from raypo.runs import Progress, no_progress, open_run, read_json, write_json
from raypo.training.encoder import make_encoder


def evaluate(config: EvaluateConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """Evaluate and write `predictions.parquet` and `metrics.json`; a finished run is recognised.

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
        rows = sample_rows(getattr(dataset, config.split), config.rows, config.seed)
        if config.recommender is not None or config.rule is not None:
            predictions = {"": _scored(rows, _baseline_scores(config, dataset, rows))}
        else:
            predictions = _ask_policy(config, dataset, rows, progress)
        for name, frame in predictions.items():
            _write(folders[name], frame, dataset, config)
    metrics = {name: read_json(folder / "metrics.json") for name, folder in folders.items()}
    return metrics if config.adapters is not None else dict(metrics[""])


def _check(config: EvaluateConfig) -> None:
    asked = [config.adapters, config.recommender, config.rule]
    if sum(value is not None for value in asked) > 1:
        raise InputError("evaluate: give one of adapters, recommender and rule, not several")
    if config.recommender is None and config.rule is None:
        resolve_model(config.policy.model)
        load_template(config.policy.prompt)
        for folder in _adapters(config).values():
            if folder is not None:
                check_adapter(folder)


def _adapters(config: EvaluateConfig) -> dict[str, Path | None]:
    return dict(config.adapters) if config.adapters is not None else {"": config.policy.adapter}


def _folders(config: EvaluateConfig) -> dict[str, Path]:
    if config.adapters is None:
        return {"": config.output}
    return {name: config.output / name for name in config.adapters}


def _baseline_scores(config: EvaluateConfig, dataset: Dataset, rows: pd.DataFrame) -> np.ndarray:
    if config.recommender is not None:
        return score_candidates(load_recommender(config.recommender), rows)
    if config.rule == "popularity":
        return popularity_scores(rows, dataset.items["popularity"].to_numpy())
    return random_scores(rows, config.seed)


def _scored(rows: pd.DataFrame, scores: np.ndarray) -> pd.DataFrame:
    predictions = empty_predictions(rows)
    predictions["logps"] = list(scores.astype(np.float64))
    return predictions


def _ask_policy(
    config: EvaluateConfig, dataset: Dataset, rows: pd.DataFrame, progress: Progress
) -> dict[str, pd.DataFrame]:
    connect()  # and quieten: vLLM speaks when it is imported
    from raypo.orchestration.generate import generate
    from raypo.orchestration.score import score

    model_folder = resolve_model(config.policy.model)
    engine = config.engine
    # The engines' context is the shorter one, and both ways of answering read the same prompts.
    room = engine.max_model_len - engine.max_new_tokens if "generate" in config.answers else None
    encoder = make_encoder(config.policy, model_folder, dataset.titles, room)
    adapters = _adapters(config)
    predictions = {name: empty_predictions(rows) for name in adapters}
    for way in config.answers:
        if way == "generate":
            answers = generate(
                rows.head(config.generate_rows or len(rows)),
                adapters,
                model_folder,
                encoder,
                config.engine,
                config.policy.dtype,
                progress,
            )
            _fill_answers(predictions, answers, dataset.titles)
        else:
            scores = score(
                rows, adapters, config.policy, model_folder, encoder, config.scorer, progress
            )
            for name, part in scores.groupby("name"):
                by_row = part.set_index("row")["logps"]
                frame = predictions[str(name)]
                frame["logps"] = [by_row.at[row] for row in frame["row"]]
    return predictions


def _fill_answers(
    predictions: Mapping[str, pd.DataFrame], answers: pd.DataFrame, titles: list[str]
) -> None:
    for name, part in answers.groupby("name"):
        by_row = part.set_index("row")
        frame = predictions[str(name)]
        frame["answer"] = frame["row"].map(by_row["answer"])
        frame["error"] = frame["row"].map(by_row["error"])
        picked = []
        for answer, items in zip(frame["answer"], frame["candidates"], strict=True):
            said = answer if isinstance(answer, str) else ""
            found = match_answer(said, [titles[item] for item in items])
            picked.append(None if found is None else int(items[found]))
        frame["answer_item"] = pd.array(picked, dtype="Int64")


def _write(
    folder: Path, predictions: pd.DataFrame, dataset: Dataset, config: EvaluateConfig
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder, predictions)
    popularity = dataset.items["popularity"].to_numpy()
    write_json(
        folder / "metrics.json", summarise(predictions, popularity, config.resamples, config.seed)
    )
