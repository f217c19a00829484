"""`raypo bench …`."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from raypo.cli.progress import progress_bar
from raypo.errors import InputError

bench_app = typer.Typer(no_args_is_help=True, help="Measure raypo on this machine.")

Output = Annotated[Path | None, typer.Option(help="CSV file to write beside the table.")]
Model = Annotated[str, typer.Option(help="folder or built-in model")]
Data = Annotated[Path | None, typer.Option(help="prepared data set; otherwise MovieLens-100K")]
Adapter = Annotated[Path | None, typer.Option(help="PEFT folder; otherwise the base model")]
Rounds = Annotated[int, typer.Option(help="rounds, of which the fastest counts", min=1)]


class Dtype(StrEnum):
    """Data types of a base model."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class Checkpointing(StrEnum):
    """Values of `policy.gradient_checkpointing`."""

    auto = "auto"
    true = "true"
    false = "false"

    def value_of(self) -> bool | Literal["auto"]:
        """The setting's own value."""
        return "auto" if self is Checkpointing.auto else self is Checkpointing.true


@bench_app.command("objectives")
def objectives(
    names: Annotated[str, typer.Option(help="presets, by comma")] = "s-dpo,napo",
    users: Annotated[str, typer.Option(help="global batch sizes")] = "16,64,256,1024,4096",
    negatives: Annotated[str, typer.Option(help="sampled negatives per user")] = "3,7,19",
    rho: Annotated[str, typer.Option(help="fractions of the batch to share with")] = "0.01,0.7",
    similar: Annotated[
        str | None, typer.Option(help="numbers of users to share with, in place of --rho")
    ] = None,
    rank_users: Annotated[
        int | None, typer.Option(help="users of the measured rank; otherwise the whole batch")
    ] = None,
    repeats: Annotated[int, typer.Option(help="repetitions, of which the median counts")] = 5,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; otherwise the fastest")] = None,
    output: Output = None,
) -> None:
    """Time and memory of objectives alone, forward and backward, without a model."""
    from raypo.bench.objectives import ObjectiveGrid, bench_objectives
    from raypo.objectives import available_objectives

    grid = ObjectiveGrid(
        names=choices("--names", names, set(available_objectives()) - {"sft"}),
        num_users=whole_numbers("--users", users),
        num_negatives=whole_numbers("--negatives", negatives),
        rhos=[float(each) for each in rho.split(",")],
        num_similar=[] if similar is None else whole_numbers("--similar", similar),
        rank_users=rank_users,
    )
    on = pick_device(device)
    with progress_bar("objectives") as progress:
        rows = [cost.row() for cost in bench_objectives(grid, on, repeats, progress)]
    show(rows, output)


@bench_app.command("policy")
def policy(
    model: Annotated[
        str, typer.Option(help="folder, built-in name, random-1b or random-7b")
    ] = "smollm2-135m-instruct",
    data: Data = None,
    users: Annotated[int, typer.Option(help="users per batch")] = 2,
    negatives: Annotated[str, typer.Option(help="negatives per user")] = "3,7,15,19",
    variants: Annotated[
        str, typer.Option(help="what to compare sft with")
    ] = "naive,response_logits_only,packed",
    dtype: Annotated[Dtype, typer.Option(help="of the base model")] = Dtype.auto,
    rank: Annotated[int, typer.Option(help="of the adapter")] = 8,
    repeats: Rounds = 3,
    gradient_checkpointing: Annotated[
        Checkpointing, typer.Option(help="of packed batches, as in training")
    ] = Checkpointing.auto,
    seed: int = 0,
    output: Output = None,
    plot: Annotated[Path | None, typer.Option(help="picture to draw beside the table")] = None,
) -> None:
    """Time and memory of a training step's forward and backward, by number of negatives."""
    from raypo.bench.inputs import InputSettings, load_inputs
    from raypo.bench.plot import plot_policy
    from raypo.bench.policy import VARIANTS, PolicySettings, bench_policy

    settings = PolicySettings(
        num_negatives=whole_numbers("--negatives", negatives),
        variants=choices("--variants", variants, VARIANTS),
        repeats=repeats,
        gradient_checkpointing=gradient_checkpointing.value_of(),
    )
    most = max(settings.num_negatives)
    loaded = load_inputs(InputSettings(model, data, users, most, dtype.value, rank, seed))
    with progress_bar("policy") as progress:
        costs = bench_policy(loaded.model, loaded.users, loaded.pad_token_id, settings, progress)
    show([cost.row() for cost in costs], output)
    if plot is not None:
        plot_policy(costs, plot, f"{model}, {users} users, {loaded.dtype}")


@bench_app.command("gpu")
def gpu(
    output: Annotated[Path, typer.Option(help="folder of gpu.json and gpu.md")],
    device: Annotated[str | None, typer.Option(help="cpu or cuda; otherwise the fastest")] = None,
    model: Annotated[str, typer.Option(help="all, or tiny for a dry run")] = "all",
    minutes: Annotated[float, typer.Option(help="after them no measurement begins")] = 9.0,
) -> None:
    """Parity, speed, memory and scoring of 7B policies in one short run; goes on where it ended."""
    from rich.console import Console
    from rich.markdown import Markdown

    from raypo.bench.gpu import GpuSettings, bench_gpu

    sizes = {"all": GpuSettings, "tiny": GpuSettings.dry}
    if model not in sizes:
        raise InputError(f"--model {model!r}: expected all or tiny")
    on = pick_device(device)
    with progress_bar("gpu") as progress:
        bench_gpu(output, sizes[model](), on, minutes, progress)
    Console().print(Markdown((output / "gpu.md").read_text(encoding="utf-8")))


@bench_app.command("scorer")
def scorer(
    model: Model = "smollm2-135m-instruct",
    adapter: Adapter = None,
    data: Data = None,
    users: Annotated[int, typer.Option(help="users per round")] = 8,
    candidates: Annotated[int, typer.Option(help="candidates per user")] = 20,
    batch: Annotated[int, typer.Option(help="users per packed forward pass")] = 8,
    modes: Annotated[
        str, typer.Option(help="of packed, vllm, generate, constrained")
    ] = "packed,vllm",
    dtype: Annotated[Dtype, typer.Option(help="of the model")] = Dtype.auto,
    repeats: Rounds = 3,
    seed: int = 0,
    output: Output = None,
) -> None:
    """Users per second: packed scorer, vLLM's prompt_logprobs, generated titles."""
    from raypo.bench.scorer import MODES, ScorerSettings, bench_scorer
    from raypo.policy.adapters import check_adapter

    settings = ScorerSettings(
        model=model,
        adapter=adapter,
        data=data,
        num_users=users,
        num_candidates=candidates,
        batch_size=batch,
        modes=choices("--modes", modes, MODES),
        dtype=dtype.value,
        repeats=repeats,
        seed=seed,
    )
    if adapter is not None:
        check_adapter(adapter)
    with progress_bar("scorer") as progress:
        rows = bench_scorer(settings, progress)
    show(rows, output)


@bench_app.command("serve")
def serve(
    model: Model = "smollm2-135m-instruct",
    adapter: Adapter = None,
    data: Data = None,
    users: Annotated[int, typer.Option(help="users that ask, in turn")] = 200,
    candidates: Annotated[int, typer.Option(help="candidates per user")] = 20,
    batch: Annotated[int, typer.Option(help="requests answered together, at most")] = 8,
    modes: Annotated[str, typer.Option(help="of packed, vllm")] = "packed,vllm",
    bound: Annotated[float, typer.Option(help="seconds of the 99th percentile, at most")] = 5.0,
    first: Annotated[float, typer.Option(help="requests a second to begin with")] = 0.25,
    growth: Annotated[float, typer.Option(help="factor between rates")] = 1.5,
    seconds: Annotated[float, typer.Option(help="of each rate, at least")] = 20,
    dtype: Annotated[Dtype, typer.Option(help="of the model")] = Dtype.auto,
    seed: int = 0,
    output: Output = None,
) -> None:
    """Requests at growing rates: how long answers take, packed and by vLLM's prompt_logprobs."""
    from raypo.bench.open_loop import Search
    from raypo.bench.scorer import ScorerSettings
    from raypo.bench.serving import MODES, bench_serving
    from raypo.policy.adapters import check_adapter

    settings = ScorerSettings(
        model=model,
        adapter=adapter,
        data=data,
        num_users=users,
        num_candidates=candidates,
        batch_size=batch,
        modes=choices("--modes", modes, MODES),
        dtype=dtype.value,
        seed=seed,
    )
    if adapter is not None:
        check_adapter(adapter)
    search = Search(bound, first, growth, seconds, max_batch=batch, seed=seed)
    with progress_bar("serve") as progress:
        rows = bench_serving(settings, search, progress)
    show(rows, output)


@bench_app.command("catalogue")
def catalogue(
    model: Model = "smollm2-135m-instruct",
    data: Data = None,
    sizes: Annotated[str, typer.Option(help="numbers of titles; all, if there are fewer")] = (
        "250,500,1000,100000"
    ),
    users: Annotated[int, typer.Option(help="users of each size")] = 3,
    budget: Annotated[int, typer.Option(help="tokens of titles per forward pass")] = 512,
    dtype: Annotated[Dtype, typer.Option(help="of the model")] = Dtype.auto,
    seed: int = 0,
    output: Output = None,
) -> None:
    """Ranking a whole catalogue: a tree of titles behind a kept prompt, and packed lists."""
    from raypo.bench.catalogue import CatalogueSettings, bench_catalogue

    settings = CatalogueSettings(
        model, data, whole_numbers("--sizes", sizes), users, budget, dtype.value, seed
    )
    with progress_bar("catalogue") as progress:
        rows = bench_catalogue(settings, progress)
    show(rows, output)


@bench_app.command("data")
def data_preparation(
    interactions: Annotated[int, typer.Option(help="of the synthetic log")] = 20_000_000,
    users: Annotated[int, typer.Option(help="of the log")] = 200_000,
    items: Annotated[int, typer.Option(help="of the catalogue")] = 50_000,
    workers: Annotated[int, typer.Option(help="Ray workers; 0 for none")] = 2,
    folder: Annotated[
        Path | None, typer.Option(help="where the log is written; otherwise a temporary folder")
    ] = None,
    seed: int = 0,
    output: Output = None,
) -> None:
    """Interactions per second and peak memory of `raypo data prepare`."""
    from raypo.bench.data import SyntheticLog, bench_data

    log = SyntheticLog(interactions, users, items, num_files=max(1, workers), seed=seed)
    with progress_bar("data") as progress:
        rows = bench_data(log, workers, folder, progress)
    show(rows, output)


@bench_app.command("rows")
def training_rows(
    rows: Annotated[str, typer.Option(help="training rows, by comma")] = "1000000,5000000,20000000",
    folder: Annotated[
        Path | None, typer.Option(help="where the rows are written; otherwise a temporary folder")
    ] = None,
    output: Output = None,
) -> None:
    """Seconds until a rank's first batch, and its memory, by number of training rows."""
    from raypo.bench.rows import bench_rows

    counts = whole_numbers("--rows", rows)
    with progress_bar("rows") as progress:
        measured = bench_rows(counts, folder, progress)
    show(measured, output)


@bench_app.command("cost")
def cost(
    runs: Annotated[list[str], typer.Argument(help="folders of sft, align, evaluate or pipelines")],
    rows: Annotated[
        int | None, typer.Option(help="users times epochs to project to", min=1)
    ] = None,
    output: Output = None,
) -> None:
    """Core or GPU hours of finished runs by their own metrics, and of other sizes."""
    from raypo.bench.cost import run_costs
    from raypo.config.paths import local_path
    from raypo.io.remote import fetch

    folders = [local_path(run) for run in runs]
    for folder in folders:
        fetch(folder)
    show([each.row(rows) for each in run_costs(folders)], output)


def whole_numbers(option: str, text: str) -> list[int]:
    """Numbers above 0, by comma.

    Raises:
        InputError: anything else, by the option's name.
    """
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"{option} {text!r}: expected whole numbers above 0, by comma")
    return [int(part) for part in parts]


def choices(option: str, text: str, allowed: Collection[str]) -> list[str]:
    """Names by comma.

    Raises:
        InputError: one is not allowed, by the option's name.
    """
    names = text.split(",")
    for name in names:
        if name not in allowed:
            known = ", ".join(sorted(allowed) if isinstance(allowed, set) else allowed)
            raise InputError(f"{option} {name!r}: expected of {known}")
    return names


def pick_device(name: str | None):  # type: ignore[no-untyped-def]
    """The torch device of this name; None takes the fastest.

    Raises:
        InputError: the device is unknown or missing.
    """
    import torch

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"--device {name!r}: expected cpu, or cuda where there is one")
    return torch.device(name)


def show(rows: Sequence[dict[str, object]], output: Path | None) -> None:
    """Print a table, one column per key, and write the same as CSV.

    Args:
        rows: with the same keys.
        output: CSV file; None writes none.
    """
    from rich.console import Console
    from rich.table import Table

    from raypo.bench.measure import write_csv

    cells = [
        {key: "" if value is None else str(value) for key, value in row.items()} for row in rows
    ]
    table, width = Table(), 1
    for key in rows[0]:
        # Headings wrap between words, and nothing is cut off, however narrow the output.
        longest = max(map(len, (*key.split(), *(row[key] for row in cells))))
        table.add_column("\n".join(textwrap.wrap(key, longest, break_on_hyphens=False)))
        width += longest + 3
    for row in cells:
        table.add_row(*row.values())
    Console(width=max(Console().width, width)).print(table)
    if output is not None:
        write_csv(output, rows)
