"""What the commands share: their arguments, and running a stage with its progress bar."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from raypo import config as configs
from raypo.cli.progress import console, progress_bar
from raypo.config.base import BaseConfig
from raypo.config.paths import uri
from raypo.io.progress import Progress

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings that override the file: dotted.key=value.")
]

# What runs a stage: its configuration and a Progress in, a JSON object out.
Action = Callable[[Any, Progress], dict[str, Any]]


def run_stage(
    stage: str,
    model: type[BaseConfig],
    config: Path | None,
    overrides: list[str] | None,
    action: Action,
) -> None:
    """Read a stage's configuration and run it, as `run_action` does."""
    run_action(stage, configs.load_config(model, config, overrides or []), action)


def run_action(stage: str, config: Any, action: Action) -> dict[str, Any]:
    """Run a stage with a progress bar, and print its result as JSON."""
    console.print(f"{stage}: into {uri(config.output)}", highlight=False, soft_wrap=True)
    with progress_bar(stage) as progress:
        result = action(config, progress)
    print(json.dumps(result, indent=2, ensure_ascii=False))
    return result


def wide(terminal: Console) -> Console:
    """A console whose tables are not wrapped in files, which have no width of their own."""
    return terminal if terminal.is_terminal else Console(stderr=terminal.stderr, width=160)
