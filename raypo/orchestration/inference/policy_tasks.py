"""Work that loads the policy itself, as Ray tasks with the resources of an engine or a scorer.

The driver loads no model: a cluster's head may have neither a GPU nor the memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import ray

from raypo.config import EngineConfig, ScorerConfig
from raypo.evaluation.greedy_check import GreedyCheck, check_greedy, rows_to_check
from raypo.evaluation.models import LanguageModels
from raypo.orchestration.waiting import wait_for_resources
from raypo.policy.adapters import merged_model


def check_answers(
    requests: pd.DataFrame,
    answers: pd.DataFrame,
    models: LanguageModels,
    num_checks: int,
    config: EngineConfig,
) -> dict[str, GreedyCheck]:
    """Decode some answers again where an engine ran; call it when the engines have ended.

    A check that fails, such as for memory, is recorded: it must not cost the answers.

    Args:
        requests: columns name, row, history, candidates.
        answers: columns name, row, answer.
        models: the models that answered.
        num_checks: rows of each model.
        config: of the engines.

    Returns:
        The agreement by model name.
    """
    rows = rows_to_check(requests, answers, num_checks)
    resources = engine_resources(config, [node["Resources"] for node in _live_nodes()])
    wait_for_resources(
        [{"CPU": resources["num_cpus"], "GPU": resources["num_gpus"]}], "the check of answers"
    )
    task = ray.remote(check_greedy).options(max_retries=1, **resources)
    try:
        checks: dict[str, GreedyCheck] = ray.get(task.remote(rows, models, config.max_new_tokens))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        reason = f"{type(cause).__name__}: {cause}".strip().splitlines()[0]
        return {name: GreedyCheck(0, 0, reason) for name in models.names}
    return checks


def engine_resources(
    config: EngineConfig, nodes: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """Resources of a task that takes the place of an engine, as options of Ray.

    An engine of several processes may spread over machines. A task cannot: it takes the resources
    of one process where no machine has those of all.

    Args:
        config: of the engines.
        nodes: resources of each machine.
    """
    wanted = {"CPU": config.cpus_per_engine, "GPU": config.gpus_per_engine}
    whole = {name: _countable(each * config.tensor_parallel) for name, each in wanted.items()}
    fits = any(all(node.get(name, 0) >= whole[name] for name in whole) for node in nodes)
    chosen = whole if fits else wanted
    return {"num_cpus": chosen["CPU"], "num_gpus": chosen["GPU"]}


def _countable(amount: float) -> float:
    """Ray gives fractions of one device, but several devices whole."""
    return amount if amount <= 1 else math.ceil(amount)


def merge_on_cluster(models: LanguageModels, adapter: Path | None, config: ScorerConfig) -> Path:
    """`merged_model` where a scorer will run; the cache is shared by all machines."""
    if adapter is None:
        return models.folder
    task: Any = ray.remote(merged_model).options(num_cpus=1, num_gpus=config.gpus_per_worker)
    return Path(ray.get(task.remote(models.policy, models.folder, adapter)))


def _live_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
