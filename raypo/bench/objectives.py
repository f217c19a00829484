"""What an objective costs by itself: forward and backward on log-probs, without a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from raypo.bench.measure import Measured, measure_in_turn
from raypo.io.progress import Progress, no_progress
from raypo.objectives import PreferenceBatch, build_objective

_CATALOGUE, _HISTORY, _EMBEDDING = 5000, 10, 64


@dataclass(frozen=True)
class ObjectiveCost:
    """One row of the table.

    Attributes:
        objective: preset. users: b, the global batch. negatives: n. rho: of sharing, 0 is off.
        set_size: |E_u| before masking. measured: forward and backward.
    """

    objective: str
    users: int
    negatives: int
    rho: float
    set_size: int
    measured: Measured

    def row(self) -> dict[str, object]:
        """Plain values for a table."""
        peak = self.measured.peak_bytes
        return {
            "objective": self.objective,
            "users": self.users,
            "negatives": self.negatives,
            "rho": self.rho,
            "set size": self.set_size,
            "milliseconds": round(1000 * self.measured.median, 2),
            "peak MiB": None if peak is None else round(peak / 2**20, 1),
        }


def bench_objectives(
    users: Sequence[int],
    negatives: Sequence[int],
    rhos: Sequence[float],
    device: torch.device,
    names: Sequence[str] = ("napo",),
    repeats: int = 5,
    progress: Progress = no_progress,
) -> Iterator[ObjectiveCost]:
    """Measure each preset on each size; a preset without sharing is measured once per size.

    Args:
        users: global batch sizes.
        negatives: sampled negatives per user.
        rhos: shares of the batch to share with, of presets that share.
        device: where the log-probs are.
        names: presets.
        repeats: repetitions of which the median counts.
        progress: told of finished rows.
    """
    cases = [
        (name, b, n, rho)
        for b in users
        for n in negatives
        for name in names
        for rho in (rhos if "rho" in _options(name) else [0.0])
    ]
    for done, (name, b, n, rho) in enumerate(cases):
        progress(done, len(cases), f"{name}, {b} users, {n} negatives, rho {rho:g}")
        shares = "rho" in _options(name)
        objective = build_objective(name, rho=rho) if shares else build_objective(name)
        batch = _batch(b, n, device)

        def step(objective: object = objective, batch: PreferenceBatch = batch) -> None:
            batch.chosen_logps.grad = batch.rejected_logps.grad = None
            objective(batch).loss.backward()  # type: ignore[operator]

        measured = measure_in_turn({name: step}, device, repeats)[name]
        size = n * (1 + int((b - 1) * rho + 1e-9))
        yield ObjectiveCost(name, b, n, rho, size, measured)
    progress(len(cases), len(cases), "")


def _options(name: str) -> dict[str, object]:
    from raypo.objectives import preset_options

    return preset_options(name)


def _batch(b: int, n: int, device: torch.device) -> PreferenceBatch:
    generator = torch.Generator().manual_seed(0)
    items = torch.randn(_CATALOGUE, _EMBEDDING, generator=generator)
    items = torch.nn.functional.normalize(items, dim=1).to(device)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    def ids(*shape: int) -> torch.Tensor:
        return torch.randint(_CATALOGUE, shape, generator=generator).to(device)

    def item_scores(users: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        scores = torch.nn.functional.normalize(users, dim=1) @ items.T
        return scores.gather(1, asked)

    return PreferenceBatch(
        chosen_logps=(2 * normal(b) - 6).requires_grad_(),
        rejected_logps=(2 * normal(b, n) - 7).requires_grad_(),
        chosen_lengths=torch.full((b,), 6, device=device),
        rejected_lengths=torch.full((b, n), 6, device=device),
        reference_chosen_logps=2 * normal(b) - 6,
        reference_rejected_logps=2 * normal(b, n) - 7,
        user_embeddings=normal(b, _EMBEDDING),
        chosen_items=ids(b),
        rejected_items=ids(b, n),
        history_items=ids(b, _HISTORY),
        item_scores=item_scores,
    )
