"""Plots of benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raypo.bench.policy import PolicyCost
from raypo.errors import InputError
from raypo.io.files import atomic_path


def plot_policy(costs: Sequence[PolicyCost], file: Path, title: str) -> None:
    """Plot seconds by number of negatives, a line per variant, and the multiply-adds' bound.

    Args:
        costs: result of `bench_policy`.
        file: image to write; its suffix is the format.
        title: title of the plot.

    Raises:
        InputError: matplotlib, of the extra `bench`, is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("--plot needs matplotlib: pip install 'raypo[bench]'") from None
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    sft = next(cost for cost in costs if cost.variant == "sft")
    for variant in dict.fromkeys(cost.variant for cost in costs if cost.variant != "sft"):
        line = [cost for cost in costs if cost.variant == variant]
        axes.plot(
            [cost.num_negatives for cost in line],
            [cost.measurement.best for cost in line],
            marker="o",
            label=variant,
        )
    packed = [cost for cost in costs if cost.variant == "packed"]
    axes.plot(
        [cost.num_negatives for cost in packed],
        [cost.relative_macs * sft.measurement.best for cost in packed],
        linestyle="--",
        color="gray",
        label="SFT time x MACs / SFT MACs",
    )
    axes.set(xlabel="negatives per user", ylabel="seconds, forward + backward", yscale="log")
    axes.set_title(title)
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format=file.suffix.lstrip(".") or "png", dpi=150)
