"""One trial of a search: an ordinary alignment run that reports its validations to Ray Tune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray.tune
from ray.train import Checkpoint
from ray.tune.integration.ray_train import TuneReportCallback

from raypo.config import AlignConfig, parse_config
from raypo.config.paths import uri
from raypo.io.remote import synced_folders
from raypo.io.run_folder import read_metrics
from raypo.orchestration.abort import register_run
from raypo.orchestration.cluster import silence_logs
from raypo.orchestration.train import train
from raypo.training.job import check_inputs
from raypo.training.local import train_locally
from raypo.training.trainer import SCORE

FINISHED, ERROR = "finished", "error"


def run_trial(config: dict[str, Any]) -> None:
    """Align with the settings of `config["align"]`; an interrupted run in its folder resumes.

    Reports every validation but the last, so that a scheduler never stops a trial that is done;
    then `finished`, or `error` with the message.

    Args:
        config: `align`, the values of an AlignConfig; `registry`, the name of the registry of runs
            that may have to be aborted.
    """
    silence_logs()
    try:
        align = parse_config(AlignConfig, config["align"], source="trial")
        with synced_folders(align):
            _align(align, config["registry"])
    except Exception as error:  # the search continues without this trial, whatever it is
        ray.tune.report({ERROR: f"{error}" or type(error).__name__})
        return
    ray.tune.report({FINISHED: True})


def _align(align: AlignConfig, registry: str) -> None:
    plan = check_inputs(align).sampler
    reported = _report_after(align, 0, plan.total_steps)
    if align.cluster.launcher == "local":
        _train_here(align, reported, plan.total_steps)
    else:
        train(align, callbacks=[_ReportValidations(registry, align.output, plan.total_steps)])


def _report_after(align: AlignConfig, step: int, total_steps: int) -> int:
    """Report the validations in the run folder after `step`, but not the last step's.

    Returns:
        The step of the last one that was reported, `step` if there was none.
    """
    for line in read_metrics(align.output):
        if SCORE in line and step < line["step"] < total_steps:
            step = line["step"]
            ray.tune.report(dict(line))
    return step


def _train_here(align: AlignConfig, reported: int, total_steps: int) -> None:
    """Train in this process, which then holds the cores."""

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal reported
        if done % align.validation.eval_steps == 0:
            reported = _report_after(align, reported, total_steps)

    train_locally(align, report)


class _ReportValidations(TuneReportCallback):  # type: ignore[misc]
    """Reports the first worker's metrics at validations to Ray Tune, but not the last step's."""

    def __init__(self, registry: str, output: Path, total_steps: int) -> None:
        super().__init__()
        self._registry = registry
        self._output = output
        self._total_steps = total_steps
        self._registered = False

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        if metrics[0]["step"] >= self._total_steps:
            return
        if not self._registered:  # before the first report for which the trial could be stopped
            register_run(self._registry, uri(self._output))
            self._registered = True
        super().after_report(run_context, metrics, checkpoint)
