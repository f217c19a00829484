"""The commands of single stages, and those that show what a stage would do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from raypo import config as configs
from raypo.cli.common import ConfigFile, Overrides, run_action, run_stage, wide
from raypo.cli.progress import console
from raypo.config.base import BaseConfig
from raypo.config.paths import uri
from raypo.errors import InputError

recommender_app = typer.Typer(no_args_is_help=True, help="The sequential recommender.")


@recommender_app.command("train")
def recommender_train(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Train a sequential recommender: SASRec, GRU4Rec or Caser."""
    from raypo.orchestration.recommender import train

    run_stage("recommender", configs.RecommenderConfig, config, overrides, train)


def sft(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Fine-tune the language model on the items that users chose."""
    _train("sft", configs.SftConfig, config, overrides)


def align(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Align the fine-tuned model with a preference objective."""
    _train("align", configs.AlignConfig, config, overrides)


def evaluate(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Evaluate adapters, a recommender or a heuristic baseline on held-out rows."""
    from raypo.orchestration.evaluate import evaluate as action

    run_stage("evaluate", configs.EvaluateConfig, config, overrides, action)


def prompts(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Print what a policy reads of held-out rows, one JSON object on each line."""
    parsed = configs.load_config(configs.PromptsConfig, config, overrides or [])
    from raypo.orchestration.prompts import prompts as action

    for one in action(parsed):
        print(json.dumps(one, ensure_ascii=False))


def fuse(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Fuse evaluated models, and say what a language model adds to the best without it."""
    from raypo.orchestration.fuse import fuse as action

    parsed = configs.load_config(configs.FuseConfig, config, overrides or [])
    result = run_action("fuse", parsed, action)
    console.print(result["sentence"], highlight=False, soft_wrap=True)


def tune(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Search alignment settings with Ray Tune."""
    from raypo.cli import tables
    from raypo.orchestration.tuning.tune import tune as action

    parsed = configs.load_config(configs.TuneConfig, config, overrides or [])
    result = run_action("tune", parsed, action)
    wide(console).print(tables.trials(result))
    for name in ("best.yaml", "search.html"):
        console.print(uri(parsed.output / name), highlight=False, soft_wrap=True)


def show(
    stage: Annotated[
        str, typer.Argument(help="prepare, recommender, sft, align, evaluate, fuse, tune")
    ],
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Print a stage's resolved configuration and batch arithmetic; runs nothing."""
    models: dict[str, type[BaseConfig]] = {
        "prepare": configs.PrepareConfig,
        "recommender": configs.RecommenderConfig,
        "sft": configs.SftConfig,
        "align": configs.AlignConfig,
        "evaluate": configs.EvaluateConfig,
        "fuse": configs.FuseConfig,
        "tune": configs.TuneConfig,
    }
    if stage not in models:
        raise InputError(f"{stage!r}: unknown stage; known are {', '.join(models)}")
    parsed = configs.load_config(models[stage], config, overrides or [])
    _check_objective(parsed)
    print(configs.dump_config(parsed), end="")
    if isinstance(parsed, configs.SftConfig | configs.AlignConfig):
        print(f"# {_batch_arithmetic(parsed)}")


def _check_objective(config: BaseConfig) -> None:
    """Refuse an objective that cannot be built: configuration does not know its options."""
    if isinstance(config, configs.AlignConfig | configs.TuneConfig):
        from raypo.training.objective import make_objective

        if isinstance(config, configs.TuneConfig):
            make_objective(config.align, setting="align.objective")
        else:
            make_objective(config)


def objectives(
    name: Annotated[str | None, typer.Argument(help="one of them; all without it")] = None,
) -> None:
    """List the preference objectives, or show one: its formula, parts, options and defaults."""
    from raypo.cli import tables
    from raypo.objectives import OptionError

    try:
        Console().print(tables.one_preset(name) if name else tables.all_presets())
    except OptionError as error:
        raise InputError(error.problem) from None


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
    run_action(stage, parsed, action)


def _batch_arithmetic(config: configs.SftConfig | configs.AlignConfig) -> str:
    workers = config.cluster.most_workers
    text = (
        f"batch: {config.micro_batch_size} users x {config.gradient_accumulation_steps} "
        f"micro-batches x {workers} workers = {config.users_per_step} users a step"
    )
    if isinstance(config, configs.AlignConfig):
        sharing = config.micro_batch_size * workers
        text += (
            f"; {config.negatives} negatives each ({_negative_sources(config)}), shared among "
            f"{sharing} users at a time"
        )
    return text


def _negative_sources(config: configs.AlignConfig) -> str:
    """Where negatives come from, as in `similar 0.5, uniform 0.5, from the catalogue`."""
    sources = config.negative_sources
    rounds = config.negative_options.self_play_rounds
    parts = []
    for name, share in sources.items():
        shown = f"{name} in {rounds} rounds" if name == "self-play" and rounds > 1 else name
        parts.append(shown if len(sources) == 1 else f"{shown} {share:.3g}")
    if config.negatives_from == "catalogue":
        parts.append("from the catalogue")
    return ", ".join(parts)
