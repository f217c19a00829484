"""`raypo data …`: fetch, prepare, import and audit data sets."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from raypo import config as configs
from raypo.cli.common import Action, ConfigFile, Overrides, run_action
from raypo.cli.progress import console, progress_bar
from raypo.config.paths import local_path

data_app = typer.Typer(no_args_is_help=True, help="Fetch and prepare data.")


@data_app.command("fetch")
def data_fetch(
    what: Annotated[
        str, typer.Argument(help="movielens-100k, smollm2-135m-instruct, minilm-l6 or tiny-random")
    ],
) -> None:
    """Fetch a built-in data set or model into the cache and print its folder."""
    from raypo import assets

    fetchers = {
        "movielens-100k": assets.movielens_100k,
        "smollm2-135m-instruct": assets.smollm2_135m_instruct,
        "minilm-l6": assets.minilm_l6,
        "tiny-random": assets.tiny_random,
    }
    if what not in fetchers:
        raise configs.InputError(f"{what!r}: unknown; known are {', '.join(fetchers)}")
    print(fetchers[what]())


@data_app.command("prepare")
def data_prepare(
    config: ConfigFile = None,
    overrides: Overrides = None,
    interactions: Annotated[
        list[str] | None, typer.Option(help="Path, glob or URL of interactions; may be repeated.")
    ] = None,
    items: Annotated[
        list[str] | None, typer.Option(help="Path, glob or URL of items; may be repeated.")
    ] = None,
    output: Annotated[str | None, typer.Option(help="Folder of the data set.")] = None,
) -> None:
    """Turn interactions and titles into sequences, splits and candidate sets."""
    from raypo.orchestration.prepare import prepare

    given = {"interactions": interactions, "items": items, "output": output}
    named = [f"{key}={json.dumps(value)}" for key, value in given.items() if value]
    parsed = configs.load_config(configs.PrepareConfig, config, [*named, *(overrides or [])])
    _run_data("prepare", parsed, prepare)


@data_app.command("import")
def data_import(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Import files that S-DPO or LLaRA publish."""
    from raypo.orchestration.prepare import import_published

    parsed = configs.load_config(configs.ImportConfig, config, overrides or [])
    _run_data("import", parsed, import_published)


def _run_data(
    stage: str, config: configs.PrepareConfig | configs.ImportConfig, action: Action
) -> None:
    from raypo.cli import tables

    info = run_action(stage, config, action)
    console.print(tables.statistics(info, config.paper))


@data_app.command("audit")
def data_audit(
    data: Annotated[str, typer.Argument(help="Prepared data set.")],
    as_json: Annotated[bool, typer.Option("--json", help="plain values instead of tables")] = False,
) -> None:
    """Audit a data set: what heuristic baselines score, and what is wrong with its rows."""
    from raypo.audit import audit
    from raypo.cli import tables
    from raypo.data.dataset import load_dataset
    from raypo.data.writing import AUDITED_ROWS
    from raypo.io.remote import fetch

    folder = local_path(data)
    fetch(folder)
    with progress_bar("audit") as progress:
        result = audit(load_dataset(folder, AUDITED_ROWS), progress)
    if as_json:
        print(json.dumps(result.as_json(), indent=2, ensure_ascii=False))
    else:
        Console().print(tables.audited(result))
