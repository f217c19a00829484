"""Runs the cells of a study: each the stages of a pipeline that its model needs.

All cells share one folder of run folders, named by the hash of their settings and inputs. So cells
that have a stage in common run it once, and what an interrupted study finished is found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from raypo.config import PipelineConfig
from raypo.config.study import Heuristic, Model, StudyConfig
from raypo.errors import InputError
from raypo.evaluation.study.record import StudyRecord
from raypo.io.progress import Progress
from raypo.orchestration.pipeline_stages import PipelineStages, check_stages
from raypo.orchestration.stage import Observer, SilentObserver


@dataclass(frozen=True)
class CellStart:
    """A cell that begins.

    Attributes:
        name: of the cell.
        seed: of its training.
        number: of cells that were begun or found before it in this call.
        total: cells and seeds in all.
        seconds_left: by the mean of the cells that ran; None before the first has ended.
    """

    name: str
    seed: int
    number: int
    total: int
    seconds_left: float | None


def run_study(
    study: StudyConfig,
    observer: Observer | None = None,
    on_cell: Callable[[CellStart], None] = lambda start: None,
    only: Collection[str] = (),
) -> StudyRecord:
    """Run all cells of all seeds that are not finished: the first seed of every cell first.

    Args:
        study: its configuration.
        observer: receives the stages.
        on_cell: receives the cells.
        only: cells to run; all of them where it is empty.

    Raises:
        InputError: a setting of a cell is wrong, or there is no such cell; nothing has run then.
    """
    unknown = set(only) - study.cells.keys()
    if unknown:
        raise InputError(
            f"no cell {', '.join(sorted(unknown))}; cells are {', '.join(study.cells)}"
        )
    pipelines = {
        (name, seed): study.cell_pipeline(name, seed)
        for seed in study.seeds
        for name in study.cells
        if not only or name in only
    }
    for config in pipelines.values():
        check_stages(config)
    study.require_one_scope()
    record = StudyRecord.open(study)
    ran: list[float] = []
    for number, ((name, seed), config) in enumerate(pipelines.items()):
        left = len(pipelines) - number
        expected = sum(ran) / len(ran) * left if ran else None
        on_cell(CellStart(name, seed, number, len(pipelines), expected))
        started = time.monotonic()
        watch = _Watch(observer or SilentObserver())
        evaluation = _evaluate(config, study.cells[name].model, watch)
        seconds = time.monotonic() - started
        if watch.has_run:
            ran.append(seconds)
        record.keep(name, seed, evaluation, seconds if watch.has_run else None)
    return record


def _evaluate(config: PipelineConfig, model: Model, observer: Observer) -> Path:
    """The folder of a cell's evaluation, after the stages that it needs."""
    stages = PipelineStages(config, observer)
    data = stages.prepare()
    if model in get_args(Heuristic):
        return stages.evaluate_heuristic(data, model)
    recommender = stages.recommender(data)
    if model == "recommender":
        return stages.evaluate_recommender(data, recommender)
    if model == "base":
        return stages.evaluate_policy(data, recommender, None, None) / "policy"
    trained = stages.sft(data, recommender)
    if model == "aligned":
        trained = stages.align(data, trained, recommender)
    return stages.evaluate_policy(data, recommender, trained / "adapter", trained) / "policy"


class _Watch:
    """An observer that also knows whether a stage had to run."""

    def __init__(self, observer: Observer) -> None:
        self.has_run = False
        self._observer = observer
        self.finished, self.found = observer.finished, observer.found

    def running(
        self, stage: str, expected: float | None, seconds_after: float
    ) -> AbstractContextManager[Progress]:
        self.has_run = True
        return self._observer.running(stage, expected, seconds_after)
