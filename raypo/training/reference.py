"""Reference log-probs: those of the SFT policy, without a second model in memory.

The reference of alignment is the policy that alignment starts from: the adapter as loaded, not the
adapter switched off. Two ways give the same numbers: every (user, epoch) that the plan will visit
scored in one pass before the first step and kept in a file that other runs with the same inputs
find again; or a frozen copy of the adapter's weights, a few megabytes, put in the trained ones'
place for one more forward pass a step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from raypo.io.files import atomic_path
from raypo.io.progress import Progress
from raypo.training.batches import Batch, BatchMaker, Plan
from raypo.training.engine import Engine
from raypo.training.optimizer_state import trained


class Reference(Protocol):
    """Where reference log-probs come from."""

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Chosen [b] and rejected [b, n] reference log-probs."""


class KeptReference:
    """Reference log-probs [1 + n] of each (epoch, row), the target's first."""

    def __init__(self, values: dict[tuple[int, int], Tensor]) -> None:
        self._values = values

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Chosen [b] and rejected [b, n] reference log-probs."""
        rows = torch.stack([self._values[key] for key in batch.keys])
        return rows[:, 0], rows[:, 1:]

    def save(self, file: Path) -> None:
        """Write all values, whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        keys = torch.tensor(list(self._values), dtype=torch.long)
        with atomic_path(file) as temporary:
            save_file({"keys": keys, "logps": torch.stack(list(self._values.values()))}, temporary)

    @classmethod
    def load(cls, file: Path) -> KeptReference:
        """Read what `save` wrote."""
        tensors = load_file(file)
        keys = [(int(epoch), int(row)) for epoch, row in tensors["keys"].tolist()]
        return cls(dict(zip(keys, tensors["logps"].unbind(), strict=True)))


class FrozenAdapter:
    """The policy with the adapter's weights as they were when this was made.

    Make it before the first step, and before a checkpoint is read.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._trained = list(trained(engine.policy).values())
        self._frozen = [parameter.detach().clone() for parameter in self._trained]

    @torch.no_grad()
    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Chosen [b] and rejected [b, n] reference log-probs; one forward pass."""
        with self._in_place():
            sums = self._engine.logps(batch.packed.to(self._engine.device))
        return sums[:, 0], sums[:, 1:]

    @contextlib.contextmanager
    def _in_place(self) -> Iterator[None]:
        current = [parameter.data for parameter in self._trained]
        for parameter, frozen in zip(self._trained, self._frozen, strict=True):
            parameter.data = frozen
        try:
            yield
        finally:
            for parameter, data in zip(self._trained, current, strict=True):
                parameter.data = data


@torch.no_grad()
def compute_reference(
    engine: Engine, plan: Plan, make_batch: BatchMaker, worker: int, progress: Progress
) -> KeptReference:
    """Score all that the plan will visit; every worker does its part and gets the whole.

    The engine must hold the weights it was made with: call it before the first step.
    """
    own: dict[tuple[int, int], Tensor] = {}
    for step in range(plan.total_steps):
        for micro in range(plan.gradient_accumulation_steps):
            batch = make_batch(*plan.micro(step, micro, worker))
            sums = engine.logps(batch.packed.to(engine.device)).cpu()
            own.update(zip(batch.keys, sums, strict=True))
        progress(step + 1, plan.total_steps, "reference log-probs")
    return KeptReference(_merge(own))


def _merge(own: dict[tuple[int, int], Tensor]) -> dict[tuple[int, int], Tensor]:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return own
    parts: list[dict[tuple[int, int], Tensor]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, own)
    return {key: value for part in parts for key, value in part.items()}
