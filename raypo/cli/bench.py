"""`raypo bench …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from raypo.cli.progress import progress_bar
from raypo.config import InputError

bench_app = typer.Typer(no_args_is_help=True, help="Measure raypo on this machine.")

Output = Annotated[Path | None, typer.Option(help="CSV to write besides the table.")]


@bench_app.command("objectives")
def objectives(
    names: Annotated[str, typer.Option(help="presets, by comma")] = "s-dpo,napo",
    users: Annotated[str, typer.Option(help="global batch sizes")] = "16,64,256,1024,4096",
    negatives: Annotated[str, typer.Option(help="sampled negatives per user")] = "3,7,19",
    rho: Annotated[str, typer.Option(help="shares of the batch to share with")] = "0.01,0.7",
    repeats: Annotated[int, typer.Option(help="repetitions, of which the median counts")] = 5,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; cuda where there is one")] = None,
    output: Output = None,
) -> None:
    """Time and memory of objectives alone, forward and backward, without a model."""
    from rich.console import Console

    from raypo.bench.measure import write_csv
    from raypo.bench.objectives import bench_objectives
    from raypo.objectives import available_objectives

    wanted = names.split(",")
    unknown = [name for name in wanted if name not in available_objectives() or name == "sft"]
    if unknown:
        raise InputError(f"--names {unknown[0]!r}: expected preference objectives, see objectives")
    with progress_bar("objectives") as progress:
        rows = [
            cost.row()
            for cost in bench_objectives(
                whole_numbers("--users", users),
                whole_numbers("--negatives", negatives),
                [float(share) for share in rho.split(",")],
                pick_device(device),
                wanted,
                repeats,
                progress,
            )
        ]
    Console().print(table(rows))
    if output is not None:
        write_csv(output, rows)


def whole_numbers(option: str, text: str) -> list[int]:
    """Numbers above 0, by comma.

    Raises:
        InputError: anything else, by the option's name.
    """
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"{option} {text!r}: expected whole numbers above 0, by comma")
    return [int(part) for part in parts]


def pick_device(name: str | None):  # type: ignore[no-untyped-def]
    """The torch device of this name, or the best there is."""
    import torch

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"--device {name!r}: expected cpu, or cuda where there is one")
    return torch.device(name)


def table(rows: list[dict[str, object]]):  # type: ignore[no-untyped-def]
    """Rows as a rich table, one column per key."""
    from rich.table import Table

    drawn = Table(*rows[0].keys())
    for row in rows:
        drawn.add_row(*("" if value is None else str(value) for value in row.values()))
    return drawn


_RECOMPUTE: dict[str, Any] = {"auto": "auto", "all": True, "none": False}
Model = Annotated[str, typer.Option(help="folder or built-in model")]
Data = Annotated[Path | None, typer.Option(help="prepared data set, else MovieLens-100K")]


@bench_app.command("policy")
def policy(
    model: Annotated[
        str, typer.Option(help="folder, built-in model, random-1b or random-7b")
    ] = "smollm2-135m-instruct",
    data: Data = None,
    users: Annotated[int, typer.Option(help="users of a batch")] = 2,
    negatives: Annotated[str, typer.Option(help="negatives per user")] = "3,7,15,19",
    ways: Annotated[str, typer.Option(help="beside sft")] = "naive,tight,packed",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16")] = "bfloat16",
    rank: Annotated[int, typer.Option(help="of the adapter")] = 8,
    repeats: Annotated[int, typer.Option(help="rounds, of which the fastest counts")] = 3,
    recompute: Annotated[str, typer.Option(help="layers in backward: auto, all or none")] = "auto",
    seed: int = 0,
    output: Output = None,
    plot: Annotated[Path | None, typer.Option(help="picture to draw besides the table")] = None,
) -> None:
    """Seconds and memory of a training step's forward and backward, by number of negatives."""
    from rich.console import Console

    from raypo.bench.inputs import load_inputs
    from raypo.bench.measure import write_csv
    from raypo.bench.plot import draw_policy
    from raypo.bench.policy import WAYS, bench_policy

    counts = whole_numbers("--negatives", negatives)
    unknown = sorted(set(ways.split(",")) - set(WAYS))
    if unknown or dtype not in ("float32", "bfloat16"):
        raise InputError(f"expected --ways of {', '.join(WAYS)} and --dtype float32 or bfloat16")
    if recompute not in _RECOMPUTE:
        raise InputError(f"--recompute {recompute!r}: expected auto, all or none")
    policy, drawn, pad, _ = load_inputs(model, data, users, max(counts), dtype, rank, seed)
    again = _RECOMPUTE[recompute]
    with progress_bar("policy") as progress:
        costs = bench_policy(policy, drawn, pad, counts, ways.split(","), repeats, again, progress)
    rows = [cost.row() for cost in costs]
    Console(width=120).print(table(rows))
    if output is not None:
        write_csv(output, rows)
    if plot is not None:
        draw_policy(costs, plot, f"{model}, {users} users, {dtype}")


@bench_app.command("scorer")
def scorer(
    model: Model = "smollm2-135m-instruct",
    adapter: Annotated[Path | None, typer.Option(help="PEFT folder, else the base model")] = None,
    data: Data = None,
    users: Annotated[int, typer.Option(help="users of a round")] = 8,
    candidates: Annotated[int, typer.Option(help="scored for each user")] = 20,
    batch: Annotated[int, typer.Option(help="users per packed pass")] = 8,
    ways: Annotated[
        str, typer.Option(help="of packed, vllm, generate, constrained")
    ] = "packed,vllm",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16")] = "bfloat16",
    repeats: Annotated[int, typer.Option(help="rounds, of which the fastest counts")] = 3,
    seed: int = 0,
    output: Output = None,
) -> None:
    """Users per second of answering: packed scorer, vLLM's prompt_logprobs, generated titles."""
    from rich.console import Console

    from raypo.bench.measure import write_csv
    from raypo.bench.scorer import WAYS, bench_scorer
    from raypo.policy.adapters import check_adapter

    if unknown := set(ways.split(",")) - set(WAYS):
        raise InputError(f"--ways {unknown.pop()!r}: expected of {', '.join(WAYS)}")
    if adapter is not None:
        check_adapter(adapter)
    asked = ways.split(",")
    with progress_bar("scorer") as progress:
        rows = bench_scorer(
            model, data, users, candidates, batch, dtype, repeats, seed, asked, adapter, progress
        )
    Console(width=140).print(table(rows))
    if output is not None:
        write_csv(output, rows)


@bench_app.command("data")
def data_preparation(
    interactions: Annotated[int, typer.Option(help="of the made-up log")] = 20_000_000,
    users: Annotated[int, typer.Option(help="of the log")] = 200_000,
    items: Annotated[int, typer.Option(help="of the catalogue")] = 50_000,
    workers: Annotated[int, typer.Option(help="Ray workers; 0 for none")] = 2,
    folder: Annotated[Path | None, typer.Option(help="for the log, else a temporary one")] = None,
    seed: int = 0,
    output: Output = None,
) -> None:
    """Interactions per second and peak memory of `raypo data prepare`."""
    from rich.console import Console

    from raypo.bench.data import bench_data

    with progress_bar("data") as progress:
        rows = bench_data(interactions, users, items, workers, seed, folder, progress)
    Console(width=120).print(table(rows))
    if output is not None:
        from raypo.bench.measure import write_csv

        write_csv(output, rows)


@bench_app.command("cost")
def cost(
    runs: Annotated[list[str], typer.Argument(help="folders of sft, align, evaluate or pipelines")],
    rows: Annotated[
        int | None, typer.Option(help="users times epochs to project to", min=1)
    ] = None,
    output: Output = None,
) -> None:
    """Core or GPU hours of finished runs by their own metrics, and of other sizes."""
    from rich.console import Console

    from raypo.bench.cost import run_costs
    from raypo.bench.measure import write_csv
    from raypo.config.paths import local_path
    from raypo.io.remote import fetch

    folders = [local_path(run) for run in runs]
    for folder in folders:
        fetch(folder)
    told = [each.row(rows) for each in run_costs(folders)]
    Console(width=120).print(table(told))
    if output is not None:
        write_csv(output, told)
