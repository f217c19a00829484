"""The `raypo` command. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape

from raypo.cli import pipeline, stages
from raypo.cli.bench_network import bench_app
from raypo.cli.data import data_app
from raypo.cli.interrupt import Interrupted, interruptible
from raypo.cli.progress import console
from raypo.cli.serve import serve
from raypo.cli.study import study_app
from raypo.errors import InputError, StoppedRun

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train and evaluate recommenders made from language models on a Ray cluster.",
)
app.add_typer(data_app, name="data")
app.add_typer(stages.recommender_app, name="recommender")
app.add_typer(bench_app, name="bench")
app.add_typer(study_app, name="study")
for command in (
    stages.sft,
    stages.align,
    stages.evaluate,
    stages.fuse,
    stages.tune,
    pipeline.pipeline,
    pipeline.demo,
    pipeline.report,
    serve,
    stages.prompts,
    stages.show,
    stages.objectives,
):
    app.command()(command)

interruptible(app)

# No space, quota exhausted, read-only, not permitted, not a folder or one, too long, too large.
_STORAGE_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EFBIG,
)


class _WarningPrinter(logging.Handler):
    """Prints warnings of the library to stderr, above a progress bar that is being drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        console.print(escape(self.format(record)), highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command; a user's mistake exits with 2, a failure with 1."""
    _exit_plainly(app)


def stage_main(stage: str) -> None:
    """Run one stage as a script: `--config FILE key=value …`, as the entry points in jobs/ do."""
    _exit_plainly(lambda: app([*stage.split(), *sys.argv[1:]]))


def _exit_plainly(run: Callable[[], Any]) -> None:
    _show_warnings()
    try:
        run()
    except InputError as error:
        console.print("[bold red]error:[/]", escape(str(error)), highlight=False, soft_wrap=True)
        sys.exit(2)
    except StoppedRun as error:
        console.print("[bold red]stopped:[/]", escape(str(error)), highlight=False, soft_wrap=True)
        sys.exit(1)
    except OSError as error:
        if error.errno not in _STORAGE_ERRORS:
            raise
        path = error.filename or "the output folder"
        console.print(
            "[bold red]error:[/]",
            escape(f"{path}: {error.strerror}{_what_is_kept(error.filename)}"),
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(1)
    except Interrupted:
        console.print("stopped; the same command continues from what is complete")
        sys.exit(130)


def _what_is_kept(path: str | None) -> str:
    """What to expect after a storage error: only a folder that was opened holds finished work."""
    parents = Path(path).parents if path else ()
    run = next((one for one in parents if os.path.isfile(one / "config.yaml")), None)
    if run is None:
        return ""
    return f"; what was finished is kept in {run}, and the same command continues from it"


def _show_warnings() -> None:
    """Print what the library logs as a warning, once per process."""
    logger = logging.getLogger("raypo")
    if not any(isinstance(handler, _WarningPrinter) for handler in logger.handlers):
        logger.addHandler(_WarningPrinter(logging.WARNING))
