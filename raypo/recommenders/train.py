"""Training a sequential recommender with early stopping, loading it and scoring with it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from raypo.config import InputError, RecommenderConfig
from raypo.config.data import FoldsConfig
from raypo.data.dataset import Dataset, load_dataset
from raypo.data.folds import fitted_rows, held_out_folds, number_of_fits, rows_hash
from raypo.data.training_rows import TrainingRows
from raypo.io.files import atomic_path, read_json, write_json
from raypo.io.progress import Progress, no_progress
from raypo.io.run_folder import append_metrics, check_run_folder, open_run
from raypo.recommenders.base import SequentialRecommender
from raypo.recommenders.build import build_recommender

_SCORE = "validation/HitRatio@1"


def train_recommender(
    config: RecommenderConfig, progress: Progress = no_progress
) -> dict[str, Any]:
    """Train on the training rows until validation HitRatio@1 no longer rises.

    Write `model.safetensors`, `model.json`, `metrics.jsonl` and `summary.json` into the run folder.
    A finished run is not repeated.

    Returns:
        The summary.

    Raises:
        InputError: the data set or the run folder is not usable, or SASRec's hidden is not a
            multiple of its heads.
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
        InputError: the data set is not usable, or SASRec's hidden is not a multiple of its heads.
    """
    if config.kind == "sasrec" and config.hidden % config.heads:
        raise InputError(f"hidden: {config.hidden} is not a multiple of heads ({config.heads})")
    dataset = load_dataset(config.data)
    dataset.require_rows("train", "validation")
    return dataset


def fit(
    config: RecommenderConfig, dataset: Dataset, progress: Progress
) -> tuple[SequentialRecommender, dict[str, Any]]:
    """Train on the training rows of `dataset`; returns the best model and its summary."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return _fit(config, dataset, progress)


def _fit(
    config: RecommenderConfig, dataset: Dataset, progress: Progress
) -> tuple[SequentialRecommender, dict[str, Any]]:
    (config.output / "metrics.jsonl").unlink(missing_ok=True)
    model = build_recommender(config.model_dump(), dataset.num_items)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    sequences = pad_sequences(training_windows(dataset.train, config.max_length))
    best, best_epoch, best_weights = -1.0, 0, copy.deepcopy(model.state_dict())
    for epoch in range(config.max_epochs):
        loss = _epoch(model, optimiser, sequences, config, epoch)
        hits = hit_ratio(model, dataset.validation)
        append_metrics(config.output, {"step": epoch + 1, "loss": loss, _SCORE: hits})
        if hits > best:
            best, best_epoch = hits, epoch + 1
            best_weights = copy.deepcopy(model.state_dict())
        progress(epoch + 1, config.max_epochs, f"validation HitRatio@1 {best:.3f}")
        if epoch + 1 - best_epoch >= config.patience:
            break
    model.load_state_dict(best_weights)
    return model.eval(), {"best_step": best_epoch, _SCORE: best, "steps": epoch + 1}


def _epoch(
    model: SequentialRecommender,
    optimiser: torch.optim.Optimizer,
    sequences: Tensor,
    config: RecommenderConfig,
    epoch: int,
) -> float:
    """One pass with a softmax over the whole catalogue at every position; the mean loss."""
    model.train()
    losses = []
    for rows in _shuffled(len(sequences), config.batch_size, [config.seed, epoch]):
        batch = sequences[rows]
        inputs, targets = batch[:, :-1], batch[:, 1:]
        states = model(inputs)[targets >= 0]
        logits = model.score_all(states) / config.temperature
        loss = cross_entropy(logits, targets[targets >= 0])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
    return float(np.mean(losses))


def training_windows(train: pd.DataFrame, max_length: int) -> list[list[int]]:
    """Each user's training sequence in windows of `max_length` + 1 that overlap by one item.

    A user's sequence is the history of the first training row, then the targets in order. Every
    position but the first is predicted once.
    """
    windows = []
    for _, rows in train.groupby("user_id", sort=True):
        sequence = [int(item) for item in rows["history"].iat[0]]
        sequence += [int(item) for item in rows["target"]]
        for start in range(0, len(sequence) - 1, max_length):
            windows.append(sequence[start : start + max_length + 1])
    return windows


def pad_sequences(sequences: Sequence[Sequence[int]]) -> Tensor:
    """Item ids [b, longest] padded with -1 at the end."""
    width = max(len(sequence) for sequence in sequences)
    padded = np.full((len(sequences), width), -1, dtype=np.int64)
    for index, sequence in enumerate(sequences):
        padded[index, : len(sequence)] = sequence
    return torch.from_numpy(padded)


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


@torch.no_grad()
def score_candidates(model: SequentialRecommender, frame: pd.DataFrame) -> np.ndarray:
    """Scores [rows, candidates] of each row's candidates."""
    embeddings = model.embed(pad_sequences(list(frame["history"])))
    candidates = torch.from_numpy(np.stack(frame["candidates"].to_list()))
    scores: np.ndarray = model.score(embeddings, candidates).numpy()
    return scores


def hit_ratio(model: SequentialRecommender, frame: pd.DataFrame) -> float:
    """HitRatio@1 among each row's candidates."""
    model.eval()
    best = score_candidates(model, frame).argmax(axis=1)
    candidates = np.stack(frame["candidates"].to_list())
    return float((candidates[np.arange(len(best)), best] == frame["target"].to_numpy()).mean())


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
    write_json(config.output / "model.json", settings | dict(further or {}))
    with atomic_path(config.output / "model.safetensors") as temporary:
        save_file(model.state_dict(), temporary)


def _shuffled(count: int, batch_size: int, seed: list[int]) -> Iterator[Tensor]:
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    for start in range(0, count, batch_size):
        yield order[start : start + batch_size]
