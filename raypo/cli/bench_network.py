"""`raypo bench network`, `latency` and `roofline`: sharing on many ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from raypo.cli.bench import Output, bench_app, choices, show, whole_numbers
from raypo.cli.progress import progress_bar
from raypo.errors import InputError

if TYPE_CHECKING:
    from raypo.bench.network import Network
    from raypo.bench.roofline import RooflineSettings

__all__ = ["bench_app"]

Ranks = Annotated[str, typer.Option(help="numbers of ranks, by comma")]
Negatives = Annotated[int, typer.Option(help="sampled negatives per user")]
Embedding = Annotated[int, typer.Option(help="width of the recommender's embeddings")]
Tokens = Annotated[int, typer.Option(help="distinct tokens of a user's prompt and responses")]
Gigabits = Annotated[float, typer.Option(help="of each rank, per second", min=0.001)]
Microseconds = Annotated[float, typer.Option(help="latency of a message", min=0)]
GpuName = Annotated[str, typer.Option(help="H100 or H200")]
Utilisation = Annotated[
    float, typer.Option(help="fraction of the peak FLOPs, assumed", min=0.01, max=1)
]


@bench_app.command("network")
def network(
    ranks: Ranks = "2,4,8,16,32,64,128,256,512,1024",
    users: Annotated[int, typer.Option(help="users of each rank")] = 16,
    negatives: Negatives = 3,
    embedding: Embedding = 64,
    tokens: Tokens = 240,
    objective: Annotated[str, typer.Option(help="preset that shares")] = "napo",
    baseline: Annotated[str, typer.Option(help="preset to compare with")] = "sims-dpo",
    gigabits: Gigabits = 200,
    microseconds: Microseconds = 5,
    gpu: GpuName = "H100",
    utilisation: Utilisation = 0.4,
    output: Output = None,
) -> None:
    """Bytes, messages and predicted time of sharing beside a 7B policy's step; sends nothing."""
    from raypo.bench.network import NetworkSettings, predict_sharing
    from raypo.objectives import available_objectives

    known = set(available_objectives()) - {"sft"}
    (sharing,) = choices("--objective", objective, known)
    (without,) = choices("--baseline", baseline, known)
    step = _roofline(users, negatives, embedding, tokens, gigabits, microseconds, gpu, utilisation)
    settings = NetworkSettings(
        objective=sharing,
        baseline=without,
        num_ranks=whole_numbers("--ranks", ranks),
        users=users,
        num_negatives=negatives,
        embedding_size=embedding,
        network=step.network,
        compute_seconds=step.compute_seconds,
    )
    show(list(predict_sharing(settings)), output)


@bench_app.command("latency")
def latency(
    objectives: Annotated[
        str, typer.Option(help="presets, by comma; the first is the baseline")
    ] = "s-dpo,s-dpo+ns,napo",
    ranks: Annotated[int, typer.Option(help="local gloo processes", min=2)] = 2,
    users: Annotated[int, typer.Option(help="users of each rank")] = 16,
    negatives: Negatives = 3,
    milliseconds: Annotated[str, typer.Option(help="added to every collective")] = "0,1,10",
    repeats: Annotated[int, typer.Option(help="steps, of which the median counts", min=1)] = 15,
    output: Output = None,
) -> None:
    """Steps of local gloo processes with slow collectives, with sharing and without."""
    from raypo.bench.latency import LatencySettings, bench_latency
    from raypo.objectives import available_objectives

    settings = LatencySettings(
        objectives=choices("--objectives", objectives, set(available_objectives()) - {"sft"}),
        num_ranks=ranks,
        users=users,
        num_negatives=negatives,
        latencies=[each / 1000 for each in _numbers("--milliseconds", milliseconds)],
        repeats=repeats,
    )
    with progress_bar("latency") as progress:
        rows = list(bench_latency(settings, progress))
    show(rows, output)


@bench_app.command("roofline")
def roofline(
    ranks: Ranks = "8,64,1024",
    users: Annotated[str, typer.Option(help="users of each rank, by comma")] = "1,4,16,64,256",
    rank: Annotated[int, typer.Option(help="of the adapter")] = 16,
    negatives: Negatives = 3,
    embedding: Embedding = 64,
    tokens: Tokens = 240,
    gigabits: Gigabits = 200,
    microseconds: Microseconds = 5,
    gpu: GpuName = "H100",
    utilisation: Utilisation = 0.4,
    output: Output = None,
) -> None:
    """A 7B policy's LoRA step on paper: compute, memory and network, and which of them binds."""
    from dataclasses import replace

    from raypo.bench.roofline import balance_rows, roofline_rows

    step = _roofline(16, negatives, embedding, tokens, gigabits, microseconds, gpu, utilisation)
    step = replace(step, decoder=replace(step.decoder, rank=rank))
    num_ranks = whole_numbers("--ranks", ranks)
    show(list(roofline_rows(step, num_ranks, whole_numbers("--users", users))), output)
    show(list(balance_rows(step, num_ranks)), None)


def _roofline(
    users: int,
    negatives: int,
    embedding: int,
    tokens: int,
    gigabits: float,
    microseconds: float,
    gpu: str,
    utilisation: float,
) -> RooflineSettings:
    from dataclasses import replace

    from raypo.bench.roofline import GPUS, Decoder, RooflineSettings

    (name,) = choices("--gpu", gpu, GPUS)
    return RooflineSettings(
        decoder=Decoder(),
        gpu=replace(GPUS[name], utilisation=utilisation),
        network=_network(gigabits, microseconds),
        users=users,
        tokens_per_user=tokens,
        num_negatives=negatives,
        embedding_size=embedding,
    )


def _network(gigabits: float, microseconds: float) -> Network:
    from raypo.bench.network import Network

    return Network(bandwidth=gigabits * 1e9 / 8, latency=microseconds / 1e6)


def _numbers(option: str, text: str) -> list[float]:
    """Numbers from 0, by comma.

    Raises:
        InputError: anything else, by the option's name.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = [-1.0]
    if not all(0 <= number < float("inf") for number in numbers):
        raise InputError(f"{option} {text!r}: expected numbers from 0, by comma")
    return numbers
