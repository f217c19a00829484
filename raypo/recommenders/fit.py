"""Fitting a sequential recommender to training rows, with early stopping on validation rows."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raypo.assets import resolve_model
from raypo.config import RecommenderConfig
from raypo.data.dataset import Dataset
from raypo.io.progress import Progress
from raypo.io.run_folder import append_metrics
from raypo.recommenders.base import SequentialRecommender
from raypo.recommenders.build import build_recommender, text_items
from raypo.recommenders.histories import pad_sequences
from raypo.recommenders.scoring import hit_ratio
from raypo.recommenders.text_encoder import TextEncoder

_SCORE = "validation/HitRatio@1"


def fit(
    config: RecommenderConfig, dataset: Dataset, progress: Progress
) -> tuple[SequentialRecommender, dict[str, Any]]:
    """Train on the training rows of `dataset` until validation HitRatio@1 no longer rises.

    Returns:
        The best model and its summary. An encoder that was trained too is in `encoder/` of the run
        folder.
    """
    encoder = _text_encoder(config, dataset)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return _fit(config, dataset, encoder, progress)


def _fit(
    config: RecommenderConfig, dataset: Dataset, encoder: TextEncoder | None, progress: Progress
) -> tuple[SequentialRecommender, dict[str, Any]]:
    (config.output / "metrics.jsonl").unlink(missing_ok=True)
    model = _new_model(config, dataset, encoder)
    trained = encoder if config.encoder_training == "end-to-end" else None
    optimiser = _optimiser(config, model, trained)
    sequences = pad_sequences(training_windows(dataset.train, config.max_length))
    best, best_epoch, best_weights = -1.0, 0, copy.deepcopy(model.state_dict())
    for epoch in range(config.max_epochs):
        loss = _epoch(model, trained, optimiser, sequences, dataset.cold, config, epoch)
        hits = hit_ratio(model, dataset.validation)
        append_metrics(config.output, {"step": epoch + 1, "loss": loss, _SCORE: hits})
        if hits > best:
            best, best_epoch = hits, epoch + 1
            best_weights = copy.deepcopy(model.state_dict())
            if trained is not None:
                trained.save(config.output / "encoder")
        progress(epoch + 1, config.max_epochs, f"validation HitRatio@1 {best:.3f}")
        if epoch + 1 - best_epoch >= config.patience:
            break
    model.load_state_dict(best_weights)
    return model.eval(), {"best_step": best_epoch, _SCORE: best, "steps": epoch + 1}


def _text_encoder(config: RecommenderConfig, dataset: Dataset) -> TextEncoder | None:
    if config.kind != "morec":
        return None
    return TextEncoder(resolve_model(config.encoder), dataset.texts)


def _new_model(
    config: RecommenderConfig, dataset: Dataset, encoder: TextEncoder | None
) -> SequentialRecommender:
    settings = config.model_dump()
    if encoder is None:
        return build_recommender(settings, dataset.num_items)
    model = build_recommender(settings | {"text_size": encoder.size}, dataset.num_items)
    text_items(model).set_texts(encoder.vectors())
    return model


def _optimiser(
    config: RecommenderConfig, model: SequentialRecommender, encoder: TextEncoder | None
) -> torch.optim.Optimizer:
    groups = [{"params": list(model.parameters()), "lr": config.learning_rate}]
    if encoder is not None:
        weights = list(encoder.model.parameters())
        groups.append({"params": weights, "lr": config.encoder_learning_rate})
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def _epoch(
    model: SequentialRecommender,
    encoder: TextEncoder | None,
    optimiser: torch.optim.Optimizer,
    sequences: Tensor,
    cold: np.ndarray | None,
    config: RecommenderConfig,
    epoch: int,
) -> float:
    """One pass with a softmax over the whole catalogue at every position; the mean loss."""
    model.train()
    losses = []
    for rows in _shuffled(len(sequences), config.batch_size, [config.seed, epoch]):
        if encoder is not None:
            text_items(model).texts = encoder.vectors().requires_grad_()
        batch = sequences[rows]
        inputs, targets = batch[:, :-1], batch[:, 1:]
        states = model(inputs)[targets >= 0]
        logits = model.score_all(states) / config.temperature
        if cold is not None:  # nobody could choose them yet
            logits = logits.masked_fill(torch.from_numpy(cold), -torch.inf)
        loss = cross_entropy(logits, targets[targets >= 0])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        if encoder is not None:
            gradient = text_items(model).texts.grad
            assert gradient is not None
            encoder.backward(gradient)
        optimiser.step()
        losses.append(loss.item())
    if encoder is not None:
        text_items(model).texts = encoder.vectors()
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


def _shuffled(count: int, batch_size: int, seed: list[int]) -> Iterator[Tensor]:
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    for start in range(0, count, batch_size):
        yield order[start : start + batch_size]
