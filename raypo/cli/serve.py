"""`raypo serve`: recommendations over HTTP from finished runs."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from raypo import config as configs
from raypo.cli.common import ConfigFile
from raypo.cli.progress import console


def serve(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FOLDER… [key=value]…",
            help="Folders of finished runs, and settings: dotted.key=value.",
        ),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Serve recommendations by the models of a pipeline, or of single trainings, until Ctrl-C."""
    folders = [one for one in what or [] if "=" not in one or Path(one).exists()]
    overrides = [one for one in what or [] if one not in folders]
    if folders:
        overrides.insert(0, f"runs={[str(folder) for folder in folders]}")
    parsed = configs.load_config(configs.ServeConfig, config, overrides)
    from raypo.orchestration.serve import start, stop

    console.print("serve: loading models …", highlight=False)
    try:
        served = start(parsed)
        console.print(_where(parsed.host, parsed.port, served.names), highlight=False)
        _until_stopped()
    except KeyboardInterrupt:
        console.print("stopped")
        raise typer.Exit(130) from None
    finally:
        stop()


def _where(host: str, port: int, names: list[str]) -> str:
    shown = f"[{host}]" if ":" in host else host
    return (
        f"serving {', '.join(names)} at http://{shown}:{port}; the interface is described at "
        f"http://{shown}:{port}/docs. Ctrl-C stops."
    )


def _until_stopped() -> None:
    """Wait for Ctrl-C, or for a signal that ends services."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    while not stopped.wait(0.5):
        pass
