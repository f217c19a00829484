"""Candidates ranked by likelihood: a Ray Data pool of packed scorers, or of vLLM engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray.data

from raypo.config import ScorerConfig
from raypo.data.tokenisation import EncodedUsers, Encoder
from raypo.evaluation.models import LanguageModels
from raypo.evaluation.requests import RequestBatch
from raypo.io.progress import Progress
from raypo.orchestration.inference.policy_tasks import merge_on_cluster
from raypo.orchestration.inference.ray_blocks import in_blocks
from raypo.policy.adapters import AdapterScorer
from raypo.policy.precision import dtype_name
from raypo.policy.scoring import score_users

_BATCHES_PER_BLOCK = 4
_READ = ["name", "row", "permutation", "history", "candidates"]


def score(
    batch: RequestBatch, models: LanguageModels, config: ScorerConfig, progress: Progress
) -> None:
    """Store the summed log-probs of every candidate, for requests without an answer.

    Answers hold `logps` and `lengths`, one per candidate in the order of the request.

    Args:
        batch: requests of mode `likelihood`.
        models: what scores them.
        config: the pool.
        progress: receives the number of scored requests.
    """
    missing = batch.store.missing(batch.requests)
    if not len(missing):
        return
    progress(len(batch.store), len(batch.requests), "loading scorers")
    if config.kind == "packed":
        arguments: tuple[Any, ...] = (models, config.batch_size)
        run_pool(_PackedScorer, arguments, missing[_READ], config, batch, progress, _logps)
        refuse_missing(batch)
        return
    # One engine per model: vLLM's prompt_logprobs fails with adapters on CPU.
    for name, folder in models.adapters.items():
        own = missing[missing["name"] == name]
        if len(own):
            merged = merge_on_cluster(models, folder, config)
            dtype = dtype_name(models.policy, config.gpus_per_worker > 0)
            arguments = (merged, dtype, models.encoder, config)
            run_pool(_VllmScorer, arguments, own[_READ], config, batch, progress, _logps)
    refuse_missing(batch)


def run_pool(
    scorer: type,
    arguments: tuple[Any, ...],
    requests: pd.DataFrame,
    config: ScorerConfig,
    batch: RequestBatch,
    progress: Progress,
    answer: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> None:
    """Answer requests by a Ray Data pool, and store the answers as they come.

    Args:
        scorer: class of the pool's actors, which takes and gives data frames.
        arguments: of its constructor.
        requests: what it reads, with columns name, row and permutation among others.
        config: size of the pool and of its batches.
        batch: whose store receives the answers.
        progress: receives the number of answers.
        answer: what is stored of a row that the scorer gave, beside its request's key.
    """
    rows_per_block = config.batch_size * _BATCHES_PER_BLOCK
    scored = in_blocks(requests, rows_per_block).map_batches(
        scorer,
        fn_constructor_args=arguments,
        batch_size=rows_per_block,
        batch_format="pandas",
        compute=ray.data.ActorPoolStrategy(size=config.workers),
        num_cpus=1,
        num_gpus=config.gpus_per_worker,
    )
    for row in scored.iter_rows():
        key = {"name": row["name"], "row": int(row["row"]), "permutation": int(row["permutation"])}
        batch.store.add(key | answer(row))
        progress(len(batch.store), len(batch.requests), "rows scored")


def _logps(row: Mapping[str, Any]) -> dict[str, Any]:
    return {column: np.asarray(row[column]).tolist() for column in ("logps", "lengths")}


def refuse_missing(batch: RequestBatch) -> None:
    """Refuse a pool's answers where some are missing.

    Raises:
        RuntimeError: a request has no answer.
    """
    missing = batch.store.missing(batch.requests)
    if len(missing):
        first = missing.iloc[0]
        raise RuntimeError(
            f"the scorers returned {len(missing)} of {len(batch.requests)} requests without an "
            f"answer; the first is row {first['row']} of model {first['name']!r}"
        )


def _encoded(encoder: Encoder, requests: pd.DataFrame) -> EncodedUsers:
    return encoder.encode(requests["history"], requests["candidates"])


def _answers(requests: pd.DataFrame, logps: np.ndarray, users: EncodedUsers) -> pd.DataFrame:
    """The answers to requests, in their order.

    Raises:
        RuntimeError: a log-prob is not a number; metrics would rank it somewhere nevertheless.
    """
    answers = requests[["name", "row", "permutation"]].reset_index(drop=True)
    for request, own in zip(answers.itertuples(), logps, strict=True):
        if not np.isfinite(own).all():
            position = int(np.argmin(np.isfinite(own)))
            raise RuntimeError(
                f"model {request.name!r}, row {request.row}: the log-prob of candidate {position} "
                f"is {own[position]}; the weights or their precision are broken"
            )
    answers["logps"] = [np.asarray(row, dtype=np.float64) for row in logps]
    step = 2 if users.is_pointwise else 1
    answers["lengths"] = [
        np.array([len(tokens) for tokens in own[::step]]) for own in users.responses
    ]
    return answers


class _PackedScorer:
    """One base model in memory with every adapter; a batch may mix them."""

    def __init__(self, models: LanguageModels, batch_size: int) -> None:
        self._policy = AdapterScorer(models.policy, models.folder, models.adapters)
        self._encoder = models.encoder
        self._batch_size = batch_size

    def __call__(self, requests: pd.DataFrame) -> pd.DataFrame:
        parts = [self._score(name, own) for name, own in requests.groupby("name", sort=False)]
        return pd.concat(parts, ignore_index=True)

    def _score(self, name: Any, requests: pd.DataFrame) -> pd.DataFrame:
        users = _encoded(self._encoder, requests)
        pad = self._encoder.tokenizer.pad_token_id
        logps = score_users(self._policy, str(name), users, pad, self._batch_size)
        return _answers(requests, logps.numpy(), users)


class _VllmScorer:
    """A vLLM engine of one merged model."""

    def __init__(self, folder: Path, dtype: str, encoder: Encoder, config: ScorerConfig) -> None:
        from raypo.evaluation.vllm_engine import VllmScorer

        self._engine = VllmScorer(folder, dtype, config.max_model_len, config.kv_cache_gib)
        self._encoder = encoder

    def __call__(self, requests: pd.DataFrame) -> pd.DataFrame:
        users = _encoded(self._encoder, requests)
        names = [
            f"model {name!r}, row {row}"
            for name, row in zip(requests["name"], requests["row"], strict=True)
        ]
        logps = np.array(self._engine(users.prompts, users.responses, names))
        if users.is_pointwise:
            logps = logps[:, ::2] - logps[:, 1::2]
        return _answers(requests, logps, users)
