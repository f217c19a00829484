"""`raypo study run` and `raypo study report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raypo.cli.common import Overrides
from raypo.cli.pipeline import StagePrinter
from raypo.cli.progress import clock, console
from raypo.config.paths import uri
from raypo.config.study import load_study

study_app = typer.Typer(no_args_is_help=True, help="Compare settings over several seeds.")
StudyFile = Annotated[Path, typer.Argument(help="YAML file of the study, as in studies/.")]


@study_app.command("run")
def run(
    file: StudyFile,
    overrides: Overrides = None,
    cell: Annotated[list[str] | None, typer.Option(help="run this cell; may be repeated")] = None,
) -> None:
    """Run what has not run yet of a study's cells and seeds; write its tables after each."""
    study = load_study(file, overrides or [])
    from raypo.evaluation.study.page import write_study
    from raypo.orchestration.study import CellStart, run_study

    def begin(start: CellStart) -> None:
        if start.number:
            write_study(study)
        left = "" if start.seconds_left is None else f", about {clock(start.seconds_left)} left"
        line = f"cell {start.number + 1} of {start.total}: {start.name}, seed {start.seed}{left}"
        console.print(line, style="bold", highlight=False, soft_wrap=True)

    run_study(study, StagePrinter(), begin, cell or ())
    for written in write_study(study):
        print(uri(written))


@study_app.command("report")
def report(file: StudyFile, overrides: Overrides = None) -> None:
    """Write tables, figures and page of what has run of a study."""
    study = load_study(file, overrides or [])
    from raypo.evaluation.study.page import write_study

    for written in write_study(study):
        print(uri(written))
