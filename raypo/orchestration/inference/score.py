"""Candidates ranked by likelihood: a Ray Data pool of packed scorers, or of vLLM engines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray.data

from raypo.config import PolicyConfig, ScorerConfig
from raypo.data.tokenisation import Encoder
from raypo.evaluation.answer_store import AnswerStore
from raypo.io.progress import Progress
from raypo.orchestration.inference.ray_blocks import in_blocks
from raypo.policy.adapters import AdapterScorer, merged_model
from raypo.policy.scoring import score_responses

_BATCHES_A_BLOCK = 4


def score(
    questions: pd.DataFrame,
    adapters: Mapping[str, Path | None],
    policy: PolicyConfig,
    model_folder: Path,
    encoder: Encoder,
    config: ScorerConfig,
    kept: AnswerStore,
    progress: Progress,
) -> None:
    """Summed log-probs of every candidate, for questions that have no answer yet.

    Args:
        questions: columns name, row, order, history, candidates.
        adapters: name -> adapter folder, None for the base model.
        policy: precision of the base model.
        model_folder: the base model.
        encoder: makes prompts' and responses' tokens.
        config: the pool.
        kept: where answers go (logps, one per candidate in the order asked), with what was answered
            before.
        progress: told of scored rows.
    """
    missing = kept.missing(questions)
    if not len(missing):
        return
    progress(len(kept), len(questions), "loading scorers")
    if config.kind == "packed":
        arguments = (dict(adapters), policy, model_folder, encoder, config.batch_size)
        _run(_PackedScorer, arguments, missing, config, kept, len(questions), progress)
        return
    # An engine holds one model, for its prompt_logprobs fail with adapters on CPU.
    for name, folder in adapters.items():
        own = missing[missing["name"] == name]
        if len(own):
            merged = merged_model(policy, model_folder, folder)
            arguments_of_one = (merged, policy, encoder, config)
            _run(_VllmScorer, arguments_of_one, own, config, kept, len(questions), progress)


def _run(
    scorer: type,
    arguments: tuple[Any, ...],
    questions: pd.DataFrame,
    config: ScorerConfig,
    kept: AnswerStore,
    total: int,
    progress: Progress,
) -> None:
    per_block = config.batch_size * _BATCHES_A_BLOCK
    columns = ["name", "row", "order", "history", "candidates"]
    scored = in_blocks(questions[columns], per_block).map_batches(
        scorer,
        fn_constructor_args=arguments,
        batch_size=per_block,
        batch_format="pandas",
        compute=ray.data.ActorPoolStrategy(size=config.workers),
        num_cpus=1,
        num_gpus=config.gpus_per_worker,
    )
    for row in scored.iter_rows():
        values = {key: np.asarray(row[key]).tolist() for key in ("logps", "lengths")}
        question = {"name": row["name"], "row": int(row["row"]), "order": int(row["order"])}
        kept.add(question | values)
        progress(len(kept), total, "rows scored")


def _encoded(encoder: Encoder, rows: pd.DataFrame) -> tuple[list[list[int]], list[list[list[int]]]]:
    prompts = [
        encoder.prompt(history, candidates)
        for history, candidates in zip(rows["history"], rows["candidates"], strict=True)
    ]
    responses = [[encoder.response(int(item)) for item in items] for items in rows["candidates"]]
    return prompts, responses


def _answers(
    rows: pd.DataFrame, logps: np.ndarray, responses: list[list[list[int]]]
) -> pd.DataFrame:
    answers = rows[["name", "row", "order"]].reset_index(drop=True)
    answers["logps"] = [np.asarray(row, dtype=np.float64) for row in logps]
    answers["lengths"] = [np.array([len(one) for one in own]) for own in responses]
    return answers


class _PackedScorer:
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
        self._batch_size = batch_size

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        parts = [self._score(name, rows) for name, rows in batch.groupby("name", sort=False)]
        return pd.concat(parts, ignore_index=True)

    def _score(self, name: Any, rows: pd.DataFrame) -> pd.DataFrame:
        prompts, responses = _encoded(self._encoder, rows)
        pad = self._encoder.tokenizer.pad_token_id
        with self._policy.using(str(name)) as model:
            logps = score_responses(model, prompts, responses, pad, self._batch_size)
        return _answers(rows, logps.numpy(), responses)


class _VllmScorer:
    """A vLLM engine of one merged model."""

    def __init__(
        self, folder: Path, policy: PolicyConfig, encoder: Encoder, config: ScorerConfig
    ) -> None:
        from raypo.evaluation.vllm_engine import VllmScorer

        self._engine = VllmScorer(folder, policy.dtype, config.max_model_len, config.kv_cache_gib)
        self._encoder = encoder

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        prompts, responses = _encoded(self._encoder, batch)
        return _answers(batch, np.array(self._engine(prompts, responses)), responses)
