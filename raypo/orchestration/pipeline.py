"""The pipeline: all stages from interaction logs to the report.

A later run finds the stages that are finished and continues after them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypo.config import PipelineConfig
from raypo.data.dataset import load_dataset
from raypo.evaluation.report.catalogue import read_catalogue_run
from raypo.evaluation.report.files import write_files
from raypo.evaluation.report.runs import read_run
from raypo.orchestration.pipeline_stages import (
    POLICY_NAMES,
    PipelineStages,
    aligned_name,
    check_stages,
)
from raypo.orchestration.stage import Observer, SilentObserver


@dataclass(frozen=True)
class Outcome:
    """What a pipeline made.

    Attributes:
        runs: (model's name, its metrics) in the table's order.
        report: the HTML page.
        seconds: wall-clock time of this call.
    """

    runs: list[tuple[str, dict[str, Any]]]
    report: Path
    seconds: float


def run_pipeline(config: PipelineConfig, observer: Observer | None = None) -> Outcome:
    """Run every stage that is not finished yet, then write the report.

    Args:
        config: the pipeline's configuration.
        observer: receives the start and the end of every stage; None shows nothing.

    Raises:
        InputError: a setting or an input of a stage is wrong.
    """
    started = time.monotonic()
    check_stages(config)
    stages = PipelineStages(config, observer or SilentObserver())
    data = stages.prepare()
    recommender = stages.recommender(data)
    sft = stages.sft(data, recommender)
    aligned = stages.align(data, sft, recommender)
    runs = {
        **stages.evaluate_baselines(data, recommender),
        **stages.evaluate_policies(data, sft, aligned),
    }
    if config.fuse is not None:
        runs |= stages.fuse(data, runs)
    of_catalogue = stages.rank_catalogue(data, recommender, sft, aligned)
    report = config.output / "report.html"
    trained = {POLICY_NAMES["sft"]: sft, aligned_name(config): aligned}
    read = [read_run(name, folder, trained.get(name)) for name, folder in runs.items()]
    ranked = [read_catalogue_run(name, folder) for name, folder in of_catalogue.items()]
    write_files(report, config.title, load_dataset(data), read, ranked)
    metrics = [(run.name, run.metrics) for run in read]
    return Outcome(metrics, report, time.monotonic() - started)
