"""Training steps: seconds, FLOP utilisation and memory of every variant, side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch

from raypo.bench.gpu.flops import step_flops
from raypo.bench.gpu.policies import RandomPolicy, free
from raypo.bench.measure import Measurement, measure_in_turn

Row = dict[str, Any]


def step_rows(
    policy: RandomPolicy,
    negatives: int,
    variants: tuple[str, ...],
    users: int,
    repeats: int,
    peak: float | None,
) -> list[Row]:
    """A row for each variant, measured in turn.

    A variant that does not fit is tried with half as many users, down to one, and recorded as such
    if that does not fit either; one that fails is recorded with its problem.

    Args:
        policy: what to measure.
        negatives: of each user.
        variants: of `VARIANTS`.
        users: in a micro-batch.
        repeats: rounds that count.
        peak: FLOP/s of the device; None where it is not known.
    """
    rows: list[Row] = []
    fitting: dict[str, tuple[int, Callable[[], None]]] = {}
    for name in variants:
        row: Row = {"model": policy.name, "negatives": negatives, "variant": name}
        try:
            found = _fitting(policy, name, users, negatives)
        except Exception as error:
            # Whatever a variant meets, the others are worth their time.
            rows.append(row | {"fits": False, "problem": problem_of(error)})
            continue
        rows.append(row | {"fits": found is not None})
        if found is not None:
            fitting[name] = found
    calls: dict[str, Callable[[], object]] = {name: step for name, (_, step) in fitting.items()}
    measured = measure_in_turn(calls, policy.device, repeats)
    return [
        row | _costs(policy, negatives, fitting[name][0], measured[name], peak)
        if (name := row["variant"]) in fitting
        else row
        for row in rows
    ]


def problem_of(error: Exception) -> str:
    """An error in one line."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


def _fitting(
    policy: RandomPolicy, variant: str, users: int, negatives: int
) -> tuple[int, Callable[[], None]] | None:
    """The largest tried number of users that fits, and its step, which ran once."""
    while users:
        try:
            step = policy.step(variant, users, negatives)
            step()
            return users, step
        except torch.cuda.OutOfMemoryError:
            users //= 2
        free(policy.device)
    return None


def _costs(
    policy: RandomPolicy, negatives: int, users: int, measured: Measurement, peak: float | None
) -> Row:
    packed = policy.pack(users, negatives)
    flops = step_flops(policy.model, packed)
    return {
        "users": users,
        "tokens": packed.num_tokens,
        "seconds": measured.best,
        "median_seconds": measured.median,
        "seconds_per_user": measured.best / users,
        "tokens_per_second": packed.num_tokens / measured.best,
        "tflops": flops.total / measured.best / 1e12,
        "mfu": None if peak is None else flops.total / measured.best / peak,
        "multiply_adds": (flops.layers + flops.head) / 4,
        "flops": {
            "layers": flops.layers,
            "lora": flops.lora,
            "attention": flops.attention,
            "head": flops.head,
        },
        "added_gib": None if measured.peak_bytes is None else measured.peak_bytes / 2**30,
    }


def peak_gib(device: torch.device) -> float | None:
    """Most memory of the device in use since it was last reset, weights included."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def limit_rows(
    policy: RandomPolicy,
    negatives: tuple[int, ...],
    most_users: int,
    variants: tuple[str, ...] = ("packed_fused", "packed_offloaded"),
) -> list[Row]:
    """The largest micro-batch that fits, by doubling, for each variant and number of negatives.

    Args:
        policy: with users and negatives enough.
        negatives: numbers of negatives.
        most_users: where to stop.
        variants: of `VARIANTS`.
    """
    rows = []
    for variant, count in itertools.product(variants, negatives):
        users, fitted, peak = 1, 0, None
        while users <= most_users:
            free(policy.device)
            if policy.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(policy.device)
            try:
                policy.step(variant, users, count)()
            except torch.cuda.OutOfMemoryError:
                break
            fitted, peak, users = users, peak_gib(policy.device), users * 2
        rows.append(
            {
                "model": policy.name,
                "variant": variant,
                "negatives": count,
                "largest_users": fitted,
                "tokens": policy.pack(fitted, count).num_tokens if fitted else 0,
                "peak_gib": peak,
                "stopped_by_memory": users <= most_users,
            }
        )
    free(policy.device)
    return rows
