"""Cost of an objective alone: forward and backward on log-probs, without a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from raypo.bench.measure import Measurement, measure_in_turn
from raypo.bench.simulated_ranks import SimulatedRanks, synthetic_batch
from raypo.errors import InputError
from raypo.io.progress import Progress, no_progress
from raypo.objectives import build_objective, preset_options
from raypo.objectives.sharing import Shared


@dataclass(frozen=True)
class ObjectiveCase:
    """One objective at one size.

    Attributes:
        objective: preset.
        num_users: B, the global batch.
        rank_users: b, users of the rank that is measured.
        num_negatives: n, sampled per user.
        rho: fraction of the batch to share with; 0 is off.
    """

    objective: str
    num_users: int
    rank_users: int
    num_negatives: int
    rho: float

    @property
    def set_size(self) -> int:
        """|E_u|, negatives per user after sharing, before masking."""
        return self.num_negatives * (1 + Shared(self.rho).num_similar(self.num_users))


@dataclass(frozen=True)
class ObjectiveGrid:
    """All combinations to measure; a preset without sharing is measured once per size.

    Attributes:
        names: presets.
        num_users: global batch sizes.
        num_negatives: sampled negatives per user.
        rhos: fractions of the batch to share negatives with, for presets that share.
        num_similar: numbers of users to share with, in place of `rhos`.
        rank_users: users of the rank that is measured; None for the whole global batch.
    """

    names: Sequence[str]
    num_users: Sequence[int]
    num_negatives: Sequence[int]
    rhos: Sequence[float]
    num_similar: Sequence[int] = ()
    rank_users: int | None = None

    def cases(self) -> list[ObjectiveCase]:
        """All measurements.

        Raises:
            InputError: a global batch is not made of ranks with `rank_users` each, or has too few
                users to share with.
        """
        return [
            ObjectiveCase(name, users, self._rank_users(users), negatives, rho)
            for users in self.num_users
            for negatives in self.num_negatives
            for name in self.names
            for rho in (self._rhos(users) if "rho" in preset_options(name) else [0.0])
        ]

    def _rank_users(self, users: int) -> int:
        rank_users = self.rank_users or users
        if users % rank_users:
            raise InputError(f"{users} users are not a multiple of a rank's {rank_users}")
        return rank_users

    def _rhos(self, users: int) -> Sequence[float]:
        if self.num_similar and max(self.num_similar) >= users:
            raise InputError(f"{max(self.num_similar)} similar users: there are {users - 1} others")
        return [similar / (users - 1) for similar in self.num_similar] or self.rhos


@dataclass(frozen=True)
class ObjectiveCost:
    """Cost of one objective at one size.

    Attributes:
        case: what was measured.
        measurement: forward and backward.
    """

    case: ObjectiveCase
    measurement: Measurement

    def row(self) -> dict[str, object]:
        """Plain values for a table."""
        case, peak = self.case, self.measurement.peak_bytes
        return {
            "objective": case.objective,
            "users": case.num_users,
            "users of the rank": case.rank_users,
            "negatives": case.num_negatives,
            "rho": float(f"{case.rho:.3g}"),
            "negatives after sharing": case.set_size,
            "median milliseconds": round(1000 * self.measurement.median, 2),
            "peak memory added (MiB)": None if peak is None else round(peak / 2**20, 1),
        }


def bench_objectives(
    grid: ObjectiveGrid,
    device: torch.device,
    repeats: int = 5,
    progress: Progress = no_progress,
) -> Iterator[ObjectiveCost]:
    """Measure each preset at each size.

    Where a rank has a part of the global batch, the other ranks are simulated: their rows take
    memory and are searched, and nothing is sent.

    Args:
        grid: what to measure.
        device: device of the log-probs.
        repeats: repetitions, of which the median counts.
        progress: reports measurements that are finished.
    """
    cases = grid.cases()
    for done, case in enumerate(cases):
        progress(done, len(cases), f"{case.objective}, {case.num_users} users, rho {case.rho:.3g}")
        step = _step_of(case, device)
        measurement = measure_in_turn({"step": step}, device, repeats)["step"]
        yield ObjectiveCost(case, measurement)
    progress(len(cases), len(cases), "")


def _step_of(case: ObjectiveCase, device: torch.device) -> Callable[[], object]:
    options: dict[str, Any] = {}
    if "rho" in preset_options(case.objective):
        options["rho"] = case.rho
    objective = build_objective(case.objective, **options)
    if case.rank_users < case.num_users:
        ranks = SimulatedRanks(num_ranks=case.num_users // case.rank_users)
        objective = replace(objective, _collective=ranks)
    batch = synthetic_batch(case.rank_users, case.num_negatives, device)

    def step() -> None:
        batch.chosen_logps.grad = batch.rejected_logps.grad = None
        objective(batch).loss.backward()  # type: ignore[no-untyped-call]

    return step
