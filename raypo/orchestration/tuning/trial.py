"""One trial of a search: an ordinary alignment run that tells Ray Tune of every validation."""

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
    """Align with the settings of `config["align"]`; the run folder is resumed where it is one.

    `config["desk"]` names where runs are known that may have to be ended.

    Reports every validation but the last, so that a scheduler never stops what has come to its
    end; then `finished`, or `error` with what went wrong.
    """
    silence_logs()
    try:
        align = parse_config(AlignConfig, config["align"], source="trial")
        with synced_folders(align):
            _align(align, config["desk"])
    except Exception as error:  # whatever it is, the search goes on without this trial
        ray.tune.report({ERROR: f"{error}" or type(error).__name__})
        return
    ray.tune.report({FINISHED: True})


def _align(align: AlignConfig, desk: str) -> None:
    _, plan = check_inputs(align)
    told = _tell_after(align, 0, plan.total_steps)
    if align.cluster.launcher == "local":
        _train_here(align, told, plan.total_steps)
    else:
        train(align, callbacks=[_Validations(desk, align.output, plan.total_steps)])


def _tell_after(align: AlignConfig, told: int, total: int) -> int:
    """Report validations behind step `told`, an interrupted run's too; the last one's step."""
    for line in read_metrics(align.output):
        if SCORE in line and told < line["step"] < total:
            told = line["step"]
            ray.tune.report(dict(line))
    return told


def _train_here(align: AlignConfig, told: int, last: int) -> None:
    """Train in this very process, which then holds the cores."""

    def tell(done: int, total: int, note: str = "") -> None:
        nonlocal told
        if done % align.validation.eval_steps == 0:
            told = _tell_after(align, told, last)

    train_locally(align, tell)


class _Validations(TuneReportCallback):  # type: ignore[misc]
    """Hands the first worker's metrics at validations to Tune, but those of the last step."""

    def __init__(self, desk: str, output: Path, total: int) -> None:
        super().__init__()
        self._desk = desk
        self._output = output
        self._total = total
        self._known = False

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        if metrics[0]["step"] >= self._total:
            return
        if not self._known:  # before Tune hears of anything that it could be stopped for
            register_run(self._desk, uri(self._output))
            self._known = True
        super().after_report(run_context, metrics, checkpoint)
