"""Reference log-probs: those of the SFT policy, computed once before the first step.

The reference of alignment is the policy that alignment starts from: the adapter as loaded, not the
adapter switched off. Every (user, epoch) that the plan will visit is scored in one pass by the
engine itself, so no second model is ever in memory; a file keeps the values for a resumed run,
whose adapter is no longer the reference.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from raypo.runs import Progress, atomic_path
from raypo.training.batches import Batch, BatchMaker, Plan
from raypo.training.engine import Engine


class ReferenceLogps:
    """Reference log-probs [1 + n] of each (epoch, row), the target's first."""

    def __init__(self, values: dict[tuple[int, int], Tensor]) -> None:
        self._values = values

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Chosen [b] and rejected [b, n] reference log-probs."""
        rows = torch.stack([self._values[key] for key in batch.keys])
        return rows[:, 0], rows[:, 1:]

    def save(self, file: Path) -> None:
        """Write all values, whole or not at all."""
        keys = torch.tensor(list(self._values), dtype=torch.long)
        with atomic_path(file) as temporary:
            save_file({"keys": keys, "logps": torch.stack(list(self._values.values()))}, temporary)

    @classmethod
    def load(cls, file: Path) -> ReferenceLogps:
        """Read what `save` wrote."""
        tensors = load_file(file)
        keys = [(int(epoch), int(row)) for epoch, row in tensors["keys"].tolist()]
        return cls(dict(zip(keys, tensors["logps"].unbind(), strict=True)))


@torch.no_grad()
def compute_reference(
    engine: Engine, plan: Plan, make_batch: BatchMaker, worker: int, progress: Progress
) -> ReferenceLogps:
    """Score all that the plan will visit; every worker does its part and gets the whole.

    The engine must hold the weights it was made with: call it before the first step.
    """
    own: dict[tuple[int, int], Tensor] = {}
    for step in range(plan.total_steps):
        for micro in range(plan.accumulation):
            batch = make_batch(*plan.micro(step, micro, worker))
            sums = engine.logps(batch.packed.to(engine.device)).cpu()
            own.update(zip(batch.keys, sums, strict=True))
        progress(step + 1, plan.total_steps, "reference log-probs")
    return ReferenceLogps(_merge(own))


def _merge(own: dict[tuple[int, int], Tensor]) -> dict[tuple[int, int], Tensor]:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return own
    parts: list[dict[tuple[int, int], Tensor]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, own)
    return {key: value for part in parts for key, value in part.items()}
