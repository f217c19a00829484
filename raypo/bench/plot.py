"""Pictures of benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raypo.bench.policy import PolicyCost
from raypo.config import InputError
from raypo.io.files import atomic_path


def draw_policy(costs: Sequence[PolicyCost], file: Path, title: str) -> None:
    """Seconds by number of negatives, a line per way, and the floor.

    Raises:
        InputError: matplotlib, of the extra `bench`, is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("--plot needs matplotlib: pip install 'raypo[bench]'") from None
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    sft = next(cost for cost in costs if cost.way == "sft")
    for way in dict.fromkeys(cost.way for cost in costs if cost.way != "sft"):
        line = [cost for cost in costs if cost.way == way]
        axes.plot(
            [cost.negatives for cost in line],
            [cost.measured.best for cost in line],
            marker="o",
            label=way,
        )
    packed = [cost for cost in costs if cost.way == "packed"]
    axes.plot(
        [cost.negatives for cost in packed],
        [cost.floor * sft.measured.best for cost in packed],
        linestyle="--",
        color="gray",
        label="floor",
    )
    axes.set(xlabel="negatives per user", ylabel="seconds, forward + backward", yscale="log")
    axes.set_title(title)
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format=file.suffix.lstrip(".") or "png", dpi=150)
