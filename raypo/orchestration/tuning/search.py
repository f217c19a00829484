"""What a search starts from: everything is checked here, before Ray starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import yaml

from raypo.config import TuneConfig, dump_config
from raypo.errors import InputError
from raypo.evaluation.search_report.trials import Trial, read_trials
from raypo.io.files import write_text
from raypo.io.run_folder import open_run
from raypo.orchestration.tuning.sampler import SettingsSampler
from raypo.orchestration.tuning.search_space import check_space
from raypo.training.job import check_inputs

# What a search in the same folder may be given other values of.
_CHANGEABLE = ("trials", "max_concurrent_trials")
# A batch whose loss is not a number, as runs write it; the second is of earlier versions.
_BAD_BATCHES = ("bad-batch-step-*", "offending-step-*")


@dataclass(frozen=True)
class Search:
    """A search whose inputs were checked.

    Attributes:
        config: the configuration, with the space's values of their settings' types.
        sampler: proposes settings.
        total_steps: optimiser steps of a trial that is not stopped.
    """

    config: TuneConfig
    sampler: SettingsSampler
    total_steps: int


def check_search(config: TuneConfig) -> Search:
    """Check everything that can be wrong without a model loaded.

    Raises:
        InputError: a wrong space or input of alignment, or halving that could stop nothing.
    """
    config = config.model_copy(update={"space": check_space(config)})
    plan = check_inputs(config.align).sampler
    _check_cluster(config)
    _check_halving(config, plan.total_steps)
    sampler = SettingsSampler(config.space, config.sampler, config.seed, config.trials)
    return Search(config, sampler, plan.total_steps)


def open_search(config: TuneConfig) -> list[Trial]:
    """Make the search's run folder, or recognise it; return its trials so far.

    A failed trial is to be run again, unless it stopped on a loss that is not a number: it would
    stop there again.

    Raises:
        InputError: the folder holds something else, or a search with another configuration.
    """
    _accept_changes(config)
    open_run(config.output, config)
    return [_to_run_again(trial) for trial in read_trials(config.output / "trials.json")]


def _check_cluster(config: TuneConfig) -> None:
    cluster = config.align.cluster
    if cluster.launcher == "local" and cluster.workers != 1:
        raise InputError(
            f"align.cluster.workers: launcher local runs 1 in each trial, got {cluster.workers}"
        )


def _check_halving(config: TuneConfig, total_steps: int) -> None:
    if config.scheduler == "none":
        return
    first = max(config.align.validation.eval_steps, config.asha.grace_steps)
    if first >= total_steps:
        raise InputError(
            f"scheduler asha: a run has {total_steps} steps, and could first be stopped at "
            f"step {first}; lower asha.grace_steps or align.validation.eval_steps"
        )


def _accept_changes(config: TuneConfig) -> None:
    """Update the folder's `config.yaml` where only changeable settings differ."""
    file = config.output / "config.yaml"
    if not file.exists():
        return
    before = yaml.safe_load(file.read_text(encoding="utf-8"))
    if _without_changeable(before) == _without_changeable(config.model_dump(mode="json")):
        write_text(file, dump_config(config))


def _without_changeable(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in _CHANGEABLE}


def _to_run_again(trial: Trial) -> Trial:
    stopped_on_loss = any(any(trial.output.glob(pattern)) for pattern in _BAD_BATCHES)
    if trial.status == "failed" and not stopped_on_loss:
        return replace(trial, status="running", error=None)
    return trial
