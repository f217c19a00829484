"""Cost of an objective alone: forward and backward on log-probs, without a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from raypo.bench.measure import Measurement, measure_in_turn
from raypo.io.progress import Progress, no_progress
from raypo.objectives import PreferenceBatch, build_objective, preset_options

_CATALOGUE_SIZE, _HISTORY_LENGTH, _EMBEDDING_SIZE = 5000, 10, 64


@dataclass(frozen=True)
class ObjectiveGrid:
    """All combinations to measure; a preset without sharing is measured once per size.

    Attributes:
        names: presets.
        num_users: global batch sizes.
        num_negatives: sampled negatives per user.
        rhos: fractions of the batch to share negatives with, for presets that share.
    """

    names: Sequence[str]
    num_users: Sequence[int]
    num_negatives: Sequence[int]
    rhos: Sequence[float]

    def cases(self) -> list[tuple[str, int, int, float]]:
        """Preset, users, negatives and rho of every measurement."""
        return [
            (name, users, negatives, rho)
            for users in self.num_users
            for negatives in self.num_negatives
            for name in self.names
            for rho in (self.rhos if "rho" in preset_options(name) else [0.0])
        ]


@dataclass(frozen=True)
class ObjectiveCost:
    """Cost of one objective at one size.

    Attributes:
        objective: preset.
        num_users: b, the global batch.
        num_negatives: n, sampled per user.
        rho: fraction of the batch to share with; 0 is off.
        set_size: |E_u|, negatives per user after sharing, before masking.
        measurement: forward and backward.
    """

    objective: str
    num_users: int
    num_negatives: int
    rho: float
    set_size: int
    measurement: Measurement

    def row(self) -> dict[str, object]:
        """Plain values for a table."""
        peak = self.measurement.peak_bytes
        return {
            "objective": self.objective,
            "users": self.num_users,
            "negatives": self.num_negatives,
            "rho": self.rho,
            "negatives after sharing": self.set_size,
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

    Args:
        grid: what to measure.
        device: device of the log-probs.
        repeats: repetitions, of which the median counts.
        progress: reports measurements that are finished.
    """
    cases = grid.cases()
    for done, (name, b, n, rho) in enumerate(cases):
        progress(done, len(cases), f"{name}, {b} users, {n} negatives, rho {rho:g}")
        shares = "rho" in preset_options(name)
        objective = build_objective(name, rho=rho) if shares else build_objective(name)
        batch = _synthetic_batch(b, n, device)

        def step(objective: object = objective, batch: PreferenceBatch = batch) -> None:
            batch.chosen_logps.grad = batch.rejected_logps.grad = None
            objective(batch).loss.backward()  # type: ignore[operator]

        measurement = measure_in_turn({name: step}, device, repeats)[name]
        size = n * (1 + int((b - 1) * rho + 1e-9))
        yield ObjectiveCost(name, b, n, rho, size, measurement)
    progress(len(cases), len(cases), "")


def _synthetic_batch(b: int, n: int, device: torch.device) -> PreferenceBatch:
    generator = torch.Generator().manual_seed(0)
    items = torch.randn(_CATALOGUE_SIZE, _EMBEDDING_SIZE, generator=generator)
    items = torch.nn.functional.normalize(items, dim=1).to(device)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    def ids(*shape: int) -> torch.Tensor:
        return torch.randint(_CATALOGUE_SIZE, shape, generator=generator).to(device)

    def item_scores(users: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        scores = torch.nn.functional.normalize(users, dim=1) @ items.T
        return scores.gather(1, candidates)

    return PreferenceBatch(
        chosen_logps=(2 * normal(b) - 6).requires_grad_(),
        rejected_logps=(2 * normal(b, n) - 7).requires_grad_(),
        chosen_lengths=torch.full((b,), 6, device=device),
        rejected_lengths=torch.full((b, n), 6, device=device),
        reference_chosen_logps=2 * normal(b) - 6,
        reference_rejected_logps=2 * normal(b, n) - 7,
        user_embeddings=normal(b, _EMBEDDING_SIZE),
        chosen_items=ids(b),
        rejected_items=ids(b, n),
        history_items=ids(b, _HISTORY_LENGTH),
        item_scores=item_scores,
    )
