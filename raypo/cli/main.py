"""The `raypo` command. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape

from raypo import config as configs
from raypo.cli.bench import bench_app
from raypo.cli.progress import clock, console, progress_bar
from raypo.config.paths import local_path, uri
from raypo.io.progress import Progress

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train and evaluate recommenders made from language models on a Ray cluster.",
)
data_app = typer.Typer(no_args_is_help=True, help="Fetch and prepare data.")
recommender_app = typer.Typer(no_args_is_help=True, help="The sequential recommender.")
app.add_typer(data_app, name="data")
app.add_typer(recommender_app, name="recommender")
app.add_typer(bench_app, name="bench")

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings that override the file: dotted.key=value.")
]

# No space, quota used up, read-only, not permitted, not a folder, too large a file.
_STORAGE_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EFBIG,
)

Action = Callable[[Any, Progress], dict[str, Any]]


def main() -> None:
    """Run the command; a user's mistake exits with 2, a failure with 1."""
    _exit_plainly(app)


def stage_main(stage: str) -> None:
    """Run one stage as a script: `--config FILE key=value …`, as the entry points in jobs/ do."""
    _exit_plainly(lambda: app([*stage.split(), *sys.argv[1:]]))


def _exit_plainly(run: Callable[[], Any]) -> None:
    try:
        run()
    except configs.InputError as error:
        console.print("[bold red]error:[/]", escape(str(error)), highlight=False, soft_wrap=True)
        sys.exit(2)
    except configs.StoppedRun as error:
        console.print("[bold red]stopped:[/]", escape(str(error)), highlight=False, soft_wrap=True)
        sys.exit(1)
    except OSError as error:
        if error.errno not in _STORAGE_ERRORS:
            raise
        place = error.filename or "the output folder"
        console.print(
            f"[bold red]error:[/] {place}: {error.strerror}; what was finished is kept, and the "
            "same command goes on from it",
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the last checkpoint")
        sys.exit(130)


@data_app.command("fetch")
def data_fetch(
    what: Annotated[
        str, typer.Argument(help="movielens-100k, smollm2-135m-instruct or tiny-random")
    ],
) -> None:
    """Fetch a built-in data set or model into the cache and print its folder."""
    from raypo import assets

    fetchers = {
        "movielens-100k": assets.movielens_100k,
        "smollm2-135m-instruct": assets.smollm2_135m_instruct,
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
    """Import published S-DPO/LLaRA files, candidates as published."""
    from raypo.orchestration.prepare import import_published

    parsed = configs.load_config(configs.ImportConfig, config, overrides or [])
    _run_data("import", parsed, import_published)


def _run_data(stage: str, parsed: Any, action: Action) -> None:
    from raypo.cli import tables

    info = _run_action(stage, parsed, action)
    console.print(tables.statistics(info, parsed.paper))


@data_app.command("audit")
def data_audit(
    data: Annotated[str, typer.Argument(help="Prepared data set.")],
    as_json: Annotated[bool, typer.Option("--json", help="plain values instead of tables")] = False,
) -> None:
    """Say what a data set really measures: what trivial rules score, what is wrong with rows."""
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


@recommender_app.command("train")
def recommender_train(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Train a sequential recommender: SASRec, GRU4Rec or Caser."""
    from raypo.orchestration.recommender import train

    _run_stage("recommender", configs.RecommenderConfig, config, overrides, train)


@app.command()
def sft(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Fine-tune the language model on what users chose."""
    _train("sft", configs.SftConfig, config, overrides)


@app.command()
def align(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Align the fine-tuned model with a preference objective."""
    _train("align", configs.AlignConfig, config, overrides)


@app.command()
def evaluate(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Measure adapters, a recommender or a rule on held-out rows."""
    from raypo.orchestration.evaluate import evaluate as action

    _run_stage("evaluate", configs.EvaluateConfig, config, overrides, action)


@app.command()
def tune(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Search alignment settings with Ray Tune."""
    from raypo.cli import tables
    from raypo.orchestration.tuning.tune import tune as action

    parsed = configs.load_config(configs.TuneConfig, config, overrides or [])
    result = _run_action("tune", parsed, action)
    _wide(console).print(tables.trials(result))
    for name in ("best.yaml", "search.html"):
        console.print(uri(parsed.output / name), highlight=False, soft_wrap=True)


@app.command()
def pipeline(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Run the whole way on your own data, from the logs to the report."""
    _run_pipeline(configs.load_config(configs.PipelineConfig, config, overrides or []))


@app.command()
def demo(
    scale: Annotated[str, typer.Option(help="smoke, demo or full")] = "demo",
    output: Annotated[str | None, typer.Option(help="default: runs/SCALE")] = None,
    seed: Annotated[int, typer.Option(help="of training")] = 0,
) -> None:
    """Run the whole way on MovieLens-100K."""
    if scale not in ("smoke", "demo", "full"):
        raise configs.InputError(f"--scale {scale}: expected smoke, demo or full")
    from raypo.orchestration.pipeline import scale_config

    _run_pipeline(scale_config(scale, output or f"runs/{scale}", seed))


@app.command()
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
    from raypo.orchestration.pipeline import report_on

    for file in report_on(runs, local_path(output), title, local_path(data) if data else None):
        print(uri(file))


@app.command()
def show(
    stage: Annotated[str, typer.Argument(help="prepare, recommender, sft, align, evaluate, tune")],
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Print a stage's resolved configuration and batch arithmetic; runs nothing."""
    models: dict[str, type[BaseModel]] = {
        "prepare": configs.PrepareConfig,
        "recommender": configs.RecommenderConfig,
        "sft": configs.SftConfig,
        "align": configs.AlignConfig,
        "evaluate": configs.EvaluateConfig,
        "tune": configs.TuneConfig,
    }
    if stage not in models:
        raise configs.InputError(f"{stage!r}: unknown stage; known are {', '.join(models)}")
    parsed = configs.load_config(models[stage], config, overrides or [])
    _check_objective(parsed)
    print(configs.dump_config(parsed), end="")
    if isinstance(parsed, configs.SftConfig | configs.AlignConfig):
        print(f"# {_batch_arithmetic(parsed)}")


def _check_objective(config: BaseModel) -> None:
    """Refuse an objective that cannot be built: configuration does not know its options."""
    if isinstance(config, configs.AlignConfig | configs.TuneConfig):
        from raypo.training.objective import make_objective

        if isinstance(config, configs.TuneConfig):
            make_objective(config.align, setting="align.objective")
        else:
            make_objective(config)


@app.command()
def objectives(
    name: Annotated[str | None, typer.Argument(help="one of them; all without it")] = None,
) -> None:
    """List the preference objectives, or show one: its formula, parts, options and defaults."""
    from raypo.cli import tables
    from raypo.objectives import OptionError

    try:
        Console().print(tables.one_preset(name) if name else tables.all_presets())
    except OptionError as error:
        raise configs.InputError(error.problem) from None


def _train(
    stage: str,
    model: type[configs.SftConfig] | type[configs.AlignConfig],
    config: Path | None,
    overrides: list[str] | None,
) -> None:
    parsed = configs.load_config(model, config, overrides or [])
    _check_objective(parsed)
    console.print(_batch_arithmetic(parsed), highlight=False)
    if parsed.cluster.launcher == "local":
        from raypo.training.local import train_locally as action
    else:
        from raypo.orchestration.train import train as action
    _run_action(stage, parsed, action)


def _run_stage(
    stage: str,
    model: type[BaseModel],
    config: Path | None,
    overrides: list[str] | None,
    action: Action,
) -> None:
    _run_action(stage, configs.load_config(model, config, overrides or []), action)


def _run_action(stage: str, parsed: Any, action: Action) -> dict[str, Any]:
    console.print(f"{stage}: into {uri(parsed.output)}", highlight=False, soft_wrap=True)
    with progress_bar(stage) as progress:
        result = action(parsed, progress)
    print(json.dumps(result, indent=2, ensure_ascii=False))
    return result


def _run_pipeline(parsed: configs.PipelineConfig) -> None:
    from raypo.evaluation.report.table import render_table
    from raypo.orchestration.pipeline import run_pipeline

    outcome = run_pipeline(parsed)
    _wide(Console()).print(render_table(outcome.runs))
    print(f"finished in {clock(outcome.seconds)}")
    print(f"report: {uri(outcome.report.absolute())}")


def _wide(terminal: Console) -> Console:
    """A file has no width of its own; a table's cells are not to be broken there."""
    return terminal if terminal.is_terminal else Console(stderr=terminal.stderr, width=160)


def _batch_arithmetic(config: configs.SftConfig | configs.AlignConfig) -> str:
    workers = config.cluster.most_workers
    text = (
        f"batch: {config.micro_batch_size} users x {config.gradient_accumulation_steps} "
        f"micro-batches x {workers} workers = {config.users_per_step} users a step"
    )
    if isinstance(config, configs.AlignConfig):
        pool = config.micro_batch_size * workers
        text += f"; {config.negatives} negatives each, shared among {pool} users at a time"
    return text
