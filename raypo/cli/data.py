"""`raypo data …`: fetch, prepare, import and audit data sets."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from raypo import config as configs
from raypo.cli.common import Action, ConfigFile, Overrides, run_action
from raypo.cli.progress import console, progress_bar
from raypo.config.paths import local_path
from raypo.errors import InputError

if TYPE_CHECKING:
    from raypo.data.dataset import Dataset
    from raypo.evaluation.memory import MemoryFinding

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
        raise InputError(f"{what!r}: unknown; known are {', '.join(fetchers)}")
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
    memory: Annotated[
        str | None,
        typer.Option(help="model, folder or built-in: has it read this data set before?"),
    ] = None,
) -> None:
    """Audit a data set: what heuristic baselines score, and what is wrong with its rows."""
    from raypo.assets import resolve_model
    from raypo.audit import audit
    from raypo.cli import tables
    from raypo.data.dataset import load_dataset
    from raypo.data.writing import AUDITED_ROWS
    from raypo.io.remote import fetch

    folder = local_path(data)
    fetch(folder)
    dataset = load_dataset(folder, AUDITED_ROWS)
    model = None if memory is None else resolve_model(memory)
    with progress_bar("audit") as progress:
        result = audit(dataset, progress)
    findings = None if model is None else _probe(dataset, model)
    if as_json:
        values = result.as_json()
        if findings is not None:
            values["memory"] = [asdict(one) for one in findings]
        print(json.dumps(values, indent=2, ensure_ascii=False))
        return
    Console().print(tables.audited(result))
    if findings is not None:
        Console().print(tables.memory(str(memory), findings))


def _probe(dataset: Dataset, model: Path) -> list[MemoryFinding]:
    from raypo.data.tokenisation import load_tokenizer
    from raypo.evaluation.memory import probe_memory
    from raypo.policy.model import load_base

    tokenizer = load_tokenizer(model)
    loaded = load_base(configs.PolicyConfig(), model).eval()
    with progress_bar("memory") as progress:
        return probe_memory(loaded, tokenizer, dataset, progress=progress)
