"""`raypo pipeline` and `raypo demo`, which run all stages, and `raypo report`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from raypo import config as configs
from raypo.cli.common import ConfigFile, Overrides, wide
from raypo.cli.progress import clock, console, progress_bar
from raypo.config.paths import local_path, uri
from raypo.config.pipeline import SCALES, scale_config
from raypo.errors import InputError
from raypo.io.progress import Progress


def pipeline(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Run all stages on your own data, from the logs to the report."""
    _run_pipeline(configs.load_config(configs.PipelineConfig, config, overrides or []))


def demo(
    scale: Annotated[str, typer.Option(help="smoke, demo or full")] = "demo",
    output: Annotated[str | None, typer.Option(help="default: runs/SCALE")] = None,
    seed: Annotated[int, typer.Option(help="of training")] = 0,
) -> None:
    """Run all stages on MovieLens-100K."""
    if scale not in SCALES:
        raise InputError(f"--scale {scale}: expected smoke, demo or full")
    _run_pipeline(scale_config(scale, output or f"runs/{scale}", seed))


def report(
    runs: Annotated[
        list[str],
        typer.Argument(help="Folders of `raypo evaluate` or a pipeline, or NAME=FOLDER, in order."),
    ],
    output: Annotated[str, typer.Option(help="The HTML file.")] = "report.html",
    title: Annotated[str, typer.Option(help="Its heading.")] = "raypo",
    data: Annotated[
        str | None, typer.Option(help="Prepared data set, else the one they were evaluated on.")
    ] = None,
) -> None:
    """Compare evaluated models: one self-contained HTML page, a Markdown and a LaTeX table."""
    from raypo.evaluation.report.files import report_on

    for file in report_on(runs, local_path(output), title, local_path(data) if data else None):
        print(uri(file))


def _run_pipeline(config: configs.PipelineConfig) -> None:
    from raypo.evaluation.report.table import render_table
    from raypo.orchestration.pipeline import run_pipeline

    outcome = run_pipeline(config, StagePrinter())
    wide(Console()).print(render_table(outcome.runs))
    print(f"finished in {clock(outcome.seconds)}")
    print(f"report: {uri(outcome.report.absolute())}")


class StagePrinter:
    """Shows the stages of a pipeline: a progress bar each, and a line when one has ended."""

    def running(
        self, stage: str, expected: float | None, seconds_after: float
    ) -> AbstractContextManager[Progress]:
        """Draw a stage's progress bar."""
        return progress_bar(stage, expected, seconds_after)

    def finished(self, stage: str, folder: Path, seconds: float) -> None:
        """Print how long a stage took."""
        self._print(f"{stage}: {clock(seconds)}, in {uri(folder)}")

    def found(self, stage: str, folder: Path) -> None:
        """Print that a stage need not run again."""
        self._print(f"{stage}: finished before, in {uri(folder)}")

    def _print(self, text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)
