"""Candidates ranked by likelihood: a Ray Data pool of the policy's packed scorers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray.data

from raypo.config import PolicyConfig, ScorerConfig
from raypo.data.encoding import Encoder
from raypo.orchestration.blocks import in_blocks
from raypo.policy.loading import AdapterScorer
from raypo.policy.scoring import score_responses
from raypo.runs import Progress


def score(
    rows: pd.DataFrame,
    adapters: Mapping[str, Path | None],
    policy: PolicyConfig,
    model_folder: Path,
    encoder: Encoder,
    config: ScorerConfig,
    progress: Progress,
) -> pd.DataFrame:
    """Summed log-probs of every candidate of each row under each adapter.

    Args:
        rows: with columns row, history, candidates.
        adapters: name -> adapter folder, None for the base model.
        policy: precision of the base model.
        model_folder: the base model.
        encoder: makes prompts' and responses' tokens.
        config: the pool.
        progress: told of scored rows.

    Returns:
        One row per adapter and test row: name, row, logps (float64, one per candidate).
    """
    requests = pd.concat(
        [rows[["row", "history", "candidates"]].assign(name=name) for name in adapters],
        ignore_index=True,
    )
    per_batch = config.batch_size * 4
    scored = in_blocks(requests, per_batch).map_batches(
        _Scorer,
        fn_constructor_args=(dict(adapters), policy, model_folder, encoder, config.batch_size),
        batch_size=per_batch,
        batch_format="pandas",
        compute=ray.data.ActorPoolStrategy(size=config.workers),
        num_cpus=1,
        num_gpus=config.gpus_per_worker,
    )
    progress(0, len(requests), "loading scorers")
    results: list[dict[str, Any]] = []
    for row in scored.iter_rows():
        results.append(row)
        progress(len(results), len(requests), "rows scored")
    return pd.DataFrame(results)


class _Scorer:
    """One model in memory with every adapter, scoring batches that may mix them."""

    def __init__(
        self,
        adapters: dict[str, Path | None],
        policy: PolicyConfig,
        model_folder: Path,
        encoder: Encoder,
        batch_size: int,
    ) -> None:
        self._policy = AdapterScorer(policy, model_folder, adapters)
        self._encoder = encoder
        self._pad = encoder.tokenizer.pad_token_id
        self._batch_size = batch_size

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        parts = [self._score(name, rows) for name, rows in batch.groupby("name", sort=False)]
        return pd.concat(parts, ignore_index=True)

    def _score(self, name: Any, rows: pd.DataFrame) -> pd.DataFrame:
        prompts = [
            self._encoder.prompt(history, candidates)
            for history, candidates in zip(rows["history"], rows["candidates"], strict=True)
        ]
        responses = [
            [self._encoder.response(int(item)) for item in items] for items in rows["candidates"]
        ]
        with self._policy.using(str(name)) as model:
            logps = score_responses(model, prompts, responses, self._pad, self._batch_size)
        scores = [np.asarray(row, dtype=np.float64) for row in logps.numpy()]
        return pd.DataFrame({"name": name, "row": rows["row"].to_numpy(), "logps": scores})
