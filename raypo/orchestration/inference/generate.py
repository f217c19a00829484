"""Greedy answers, free or constrained to candidates, from a pool of vLLM engines behind Ray Data.

The pool is Ray's own (`ray.data.llm`). Prompts are tokenised here, so that the policy's scorer and
the engines read the same tokens. Adapters are LoRA requests: one engine serves several of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from ray.data import TaskPoolStrategy
from ray.data.llm import build_processor

from raypo.config import EngineConfig
from raypo.data.tokenisation import Encoder
from raypo.evaluation.greedy_check import first_line
from raypo.evaluation.models import LanguageModels
from raypo.evaluation.requests import RequestBatch, max_constrained_tokens
from raypo.io.progress import Progress
from raypo.orchestration.inference.engine_pool import engine_pool
from raypo.orchestration.inference.engine_rows import engine_answer
from raypo.orchestration.inference.generate_embedded import run_embedded_pool
from raypo.orchestration.inference.ray_blocks import in_blocks

_ATTEMPTS = 2


def generate(
    batches: Sequence[RequestBatch],
    models: LanguageModels,
    config: EngineConfig,
    progress: Progress,
) -> None:
    """Store the answers to requests that have none, and the errors of those that fail.

    All batches share the engines. A failed request is repeated once: an engine that dies loses the
    rows it was working on, and Ray starts another one.

    Args:
        batches: requests of modes `generate` and `constrained`.
        models: what answers them.
        config: the pool.
        progress: receives the number of answers.
    """
    for attempt in range(_ATTEMPTS):
        for batch in batches:
            batch.errors.clear()
        for pool in _pools(models, config):
            parts = [
                _engine_requests(number, batch, pool, config)
                for number, batch in enumerate(batches)
            ]
            missing = pd.concat(parts, ignore_index=True)
            if len(missing):
                note = "starting engines" if attempt == 0 else "repeating failed requests"
                _report(batches, progress, note)
                for output in _run_pool(missing, pool, config):
                    _store(output, batches)
                    _report(batches, progress, "answers")
        for batch in batches:
            _mark_lost(batch)
        if not any(batch.errors for batch in batches):
            break


def _mark_lost(batch: RequestBatch) -> None:
    """Give an error to requests that came back neither with an answer nor with an error.

    Without one their rows would look like rows that were never requested.
    """
    missing = batch.store.missing(batch.requests)
    for name, row in zip(missing["name"], missing["row"], strict=True):
        batch.errors.setdefault((str(name), int(row)), "the engines returned no answer")


def _pools(models: LanguageModels, config: EngineConfig) -> list[LanguageModels]:
    """The models that may share an engine.

    On a CPU the base model gets an engine of its own. vLLM marks a request without adapter by slot
    -1, which its CPU kernels (`lora/ops/torch_ops`) read as the last slot: in an engine with
    adapters the base model would answer with one of them. Its GPU kernels skip -1.
    """
    base = models.subset([name for name, folder in models.adapters.items() if folder is None])
    adapted = models.subset([name for name, folder in models.adapters.items() if folder])
    if config.gpus_per_engine > 0 or not base.names or not adapted.names:
        return [models]
    return [base, adapted]


def _engine_requests(
    number: int, batch: RequestBatch, models: LanguageModels, config: EngineConfig
) -> pd.DataFrame:
    """What the engines receive for the unanswered requests of batch `number` to these models."""
    requests = batch.requests
    missing = batch.store.missing(requests[requests["name"].isin(models.names)])
    users = list(zip(missing["history"], missing["candidates"], strict=True))
    served = {
        name: str(folder.resolve() if folder else models.folder)
        for name, folder in models.adapters.items()
    }
    encoder = models.encoder
    prompts = encoder.encode(missing["history"], missing["candidates"], ()).prompts
    # Free answers have the same parameters in all rows, so that one object serves them all.
    free = {"temperature": 0.0, "max_tokens": config.max_new_tokens}
    return pd.DataFrame(
        {
            "batch": number,
            "mode": batch.mode,
            "history": missing["history"].to_numpy(),
            "candidates": missing["candidates"].to_numpy(),
            "name": missing["name"].to_numpy(),
            "row": missing["row"].to_numpy(),
            "permutation": missing["permutation"].to_numpy(),
            "model": missing["name"].map(served).to_numpy(),
            "tokenized_prompt": prompts,
            "sampling_params": [
                _constrained(encoder, candidates) if batch.mode == "constrained" else free
                for _, candidates in users
            ],
        }
    )


def _constrained(encoder: Encoder, candidates: Sequence[int]) -> dict[str, Any]:
    """Sampling parameters that allow only the candidates' responses: ' title', as in training."""
    longest = max(len(encoder.response(int(item))) for item in candidates)
    return {
        "temperature": 0.0,
        "max_tokens": max_constrained_tokens(longest),
        "structured_outputs": {"choice": [" " + encoder.titles[int(item)] for item in candidates]},
    }


def _run_pool(
    requests: pd.DataFrame, models: LanguageModels, config: EngineConfig
) -> Iterator[dict[str, Any]]:
    hints = models.encoder.hints
    if hints is not None and hints.marker is not None:
        yield from run_embedded_pool(requests, models, config)
        return
    requests = requests.drop(columns=["mode", "history", "candidates"])
    # Pre- and postprocessing only move rows. If they needed a core, they could wait for ever for
    # one that an engine holds. One worker each is enough; each further one takes seconds to start.
    light = {"num_cpus": 0, "compute": TaskPoolStrategy(size=1)}
    processor = build_processor(
        engine_pool(models, config),
        preprocess=dict,
        postprocess=engine_answer,
        preprocess_map_kwargs=light,
        postprocess_map_kwargs=light,
    )
    yield from processor(in_blocks(requests, config.batch_size)).iter_rows()


def _store(output: dict[str, Any], batches: Sequence[RequestBatch]) -> None:
    """Store an answer or an error.

    A failed request comes with the engine's columns and its error. In a block with others it has
    their columns too, without values.
    """
    batch = batches[int(output["batch"])]
    name, row, text = str(output["name"]), int(output["row"]), output.get("text")
    error = output.get("__inference_error__")
    if error or not isinstance(text, str):
        batch.errors[name, row] = str(error or "the engine returned no text")
        return
    key = {"name": name, "row": row, "permutation": int(output["permutation"])}
    batch.store.add(key | {"answer": first_line(text), "tokens": int(output["tokens"])})


def _report(batches: Sequence[RequestBatch], progress: Progress, note: str) -> None:
    done = sum(len(batch.store) for batch in batches)
    progress(done, sum(len(batch.requests) for batch in batches), note)
