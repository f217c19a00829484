"""A recommender's run folder: training into it, further fits to folds, and loading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from raypo.assets import resolve_model
from raypo.config import RecommenderConfig
from raypo.config.data import FoldsConfig
from raypo.data.dataset import Dataset, load_dataset
from raypo.data.folds import fitted_rows, held_out_folds, number_of_fits, rows_hash
from raypo.data.training_rows import TrainingRows
from raypo.errors import InputError
from raypo.io.files import atomic_path, read_json, write_json
from raypo.io.progress import Progress, no_progress
from raypo.io.run_folder import check_run_folder, open_run
from raypo.recommenders.base import SequentialRecommender
from raypo.recommenders.build import build_recommender, text_items
from raypo.recommenders.fit import fit


def train_recommender(
    config: RecommenderConfig, progress: Progress = no_progress
) -> dict[str, Any]:
    """Train on the training rows until validation HitRatio@1 no longer rises.

    Write `model.safetensors`, `model.json`, `metrics.jsonl` and `summary.json` into the run folder.
    A finished run is not repeated.

    Returns:
        The summary.

    Raises:
        InputError: the data set or the run folder is not usable, hidden is not a multiple of
            the heads of attention, or the text encoder is missing.
    """
    summary_file = config.output / "summary.json"
    if check_run_folder(config.output, config) and summary_file.exists():
        return dict(read_json(summary_file))
    dataset = check_inputs(config)
    open_run(config.output, config)
    model, summary = fit(config, dataset, progress)
    save_recommender(model, config, dataset)
    if config.folds is not None:
        summary["folds"] = fit_folds(config, config.folds, dataset, progress)
    write_json(summary_file, summary)
    return summary


def fit_folds(
    config: RecommenderConfig, folds: FoldsConfig, dataset: Dataset, progress: Progress
) -> list[dict[str, Any]]:
    """Fit to parts of the training rows too, into `folds/0`, `folds/1`, … of the run folder.

    Each `model.json` names the rows that its fit took (`fitted_rows`, a hash), so that
    `raypo.recommenders.hints` can check that others are out of fold.

    Returns:
        The summary of each fit.

    Raises:
        InputError: a part has no rows.
    """
    held_out = held_out_folds(folds, TrainingRows.of_frame(dataset.train))
    summaries = []
    for fold in range(number_of_fits(folds)):
        fitted = fitted_rows(held_out, fold)
        if not fitted.any() or fitted.all():
            raise InputError(f"folds: fit {fold} has no rows, or holds out none")
        part = replace(dataset, train=dataset.train[fitted].reset_index(drop=True))
        own = config.model_copy(update={"output": config.output / "folds" / str(fold)})
        own.output.mkdir(parents=True, exist_ok=True)
        model, summary = fit(own, part, progress)
        save_recommender(model, own, dataset, {"fitted_rows": rows_hash(fitted)})
        summaries.append(summary)
    return summaries


def check_inputs(config: RecommenderConfig) -> Dataset:
    """Check everything before anything is written; returns the data set.

    Raises:
        InputError: the data set is not usable, hidden is not a multiple of the heads of attention,
            or the text encoder is missing.
    """
    if config.kind in ("sasrec", "morec") and config.hidden % config.heads:
        raise InputError(f"hidden: {config.hidden} is not a multiple of heads ({config.heads})")
    if config.kind == "morec":
        resolve_model(config.encoder)
    dataset = load_dataset(config.data)
    dataset.require_rows("train", "validation")
    return dataset


def load_recommender(folder: Path) -> SequentialRecommender:
    """A trained recommender, frozen, in evaluation mode.

    Raises:
        InputError: `folder` is not a finished recommender run, or its `model.json` does not
            describe a known kind; the message names the field.
    """
    weights = folder / "model.safetensors"
    if not weights.exists():
        raise InputError(f"{folder}: no trained recommender there (model.safetensors is missing)")
    settings = read_json(folder / "model.json")
    try:
        model = build_recommender(settings, settings["num_items"])
    except InputError as error:
        raise InputError(f"{folder / 'model.json'}: {error}") from None
    model.load_state_dict(load_file(weights))
    return model.requires_grad_(False).eval()


def save_recommender(
    model: SequentialRecommender,
    config: RecommenderConfig,
    dataset: Dataset,
    further: Mapping[str, Any] | None = None,
) -> None:
    """Write `model.json`, with what `further` says, and `model.safetensors`."""
    settings = config.model_dump(mode="json") | {
        "num_items": dataset.num_items,
        "dataset": dataset.fingerprint,
    }
    if config.kind == "morec":
        settings["text_size"] = text_items(model).texts.shape[1]
    write_json(config.output / "model.json", settings | dict(further or {}))
    with atomic_path(config.output / "model.safetensors") as temporary:
        save_file(model.state_dict(), temporary)
