"""Reference log-probs of the SFT policy, without a second model in memory.

The reference of alignment is the policy that alignment starts from: the adapter as loaded, not the
base model. Two modes give the same numbers:

- precomputed: every (user, epoch) that the sampler will visit is scored before the first step, and
  stored in a file that other runs with the same inputs find again.
- on-the-fly: a frozen copy of the adapter's weights, a few megabytes, replaces the trained weights
  during one more forward pass per step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from raypo.errors import InputError
from raypo.io.files import atomic_path
from raypo.io.progress import Progress
from raypo.training.batches import Batch, BatchMaker
from raypo.training.engine import Engine
from raypo.training.loader import make_global_batch
from raypo.training.optimizer_state import trainable_parameters
from raypo.training.sampler import BatchSampler


class Reference(Protocol):
    """Source of reference log-probs."""

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Chosen [b] and rejected [b, n] reference log-probs."""


class PrecomputedReference:
    """Reference log-probs [1 + n] of each (epoch, row), the target's first."""

    def __init__(self, values: dict[tuple[int, int], Tensor]) -> None:
        """Hold log-probs by (epoch, row)."""
        self._values = values

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Chosen [b] and rejected [b, n] reference log-probs."""
        rows = torch.stack([self.of(key) for key in batch.keys])
        return rows[:, 0], rows[:, 1:]

    def of(self, key: tuple[int, int]) -> Tensor:
        """Log-probs [1 + n] of an (epoch, row)."""
        return self._values[key]

    @property
    def is_finite(self) -> bool:
        """Whether all values are finite."""
        return all(bool(value.isfinite().all()) for value in self._values.values())

    def tensors(self) -> dict[str, Tensor]:
        """The keys and values of all users."""
        keys = torch.tensor(list(self._values), dtype=torch.long)
        return {"keys": keys, "logps": torch.stack(list(self._values.values()))}

    def save(self, file: Path) -> None:
        """Write all values atomically."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary:
            save_file(self.tensors(), temporary)

    @classmethod
    def load(cls, file: Path) -> PrecomputedReference:
        """Read a file that holds `tensors`.

        Raises:
            InputError: it is missing or damaged.
        """
        try:
            tensors = load_file(file)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{file}: cannot be read ({error})") from error
        keys = [(int(epoch), int(row)) for epoch, row in tensors["keys"].tolist()]
        return cls(dict(zip(keys, tensors["logps"].unbind(), strict=True)))


class FrozenAdapter:
    """The policy with a frozen copy of the adapter's initial weights.

    Construct it before the first step, and before a checkpoint is loaded.
    """

    def __init__(self, engine: Engine) -> None:
        """Copy the weights that `engine` trains."""
        self._engine = engine
        self._trained = list(trainable_parameters(engine.policy).values())
        self._frozen = [parameter.detach().clone() for parameter in self._trained]

    @torch.no_grad()
    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Chosen [b] and rejected [b, n] reference log-probs; one forward pass."""
        with self._swapped_in(), without_dropout(self._engine):
            sums = self._engine.logps(batch.packed.to(self._engine.device))
        return sums[:, 0], sums[:, 1:]

    @contextlib.contextmanager
    def _swapped_in(self) -> Iterator[None]:
        current = [parameter.data for parameter in self._trained]
        for parameter, frozen in zip(self._trained, self._frozen, strict=True):
            parameter.data = frozen
        try:
            yield
        finally:
            for parameter, data in zip(self._trained, current, strict=True):
                parameter.data = data


@contextlib.contextmanager
def without_dropout(engine: Engine) -> Iterator[None]:
    """The policy in evaluation mode for the length of the block."""
    engine.policy.eval()
    try:
        yield
    finally:
        engine.policy.train()


@torch.no_grad()
def compute_reference(
    engine: Engine,
    sampler: BatchSampler,
    make_batch: BatchMaker,
    rank: int,
    progress: Progress,
    steps: range | None = None,
    note: str = "reference log-probs",
) -> PrecomputedReference:
    """Score every user that `sampler` will visit. A collective: every rank calls it.

    Args:
        engine: holds the reference weights, so call it before the first step.
        sampler: of the whole run.
        make_batch: turns rows into batches.
        rank: rank of this process, which scores its own users.
        progress: called with the steps that are scored.
        steps: whose users are scored; None is all steps of the run.
        note: what is being computed, for `progress`.

    Returns:
        Log-probs of the users of all ranks.
    """
    own: dict[tuple[int, int], Tensor] = {}
    steps = range(sampler.total_steps) if steps is None else steps
    with without_dropout(engine):
        for done, step in enumerate(steps, start=1):
            epoch, global_batches = sampler.rank_batches(step, rank)
            for rows in global_batches:
                # Repeated users too: partitioned models communicate in each pass.
                for batch in make_global_batch(make_batch, epoch, rows).micro_batches:
                    sums = engine.logps(batch.packed.to(engine.device)).cpu()
                    own.update(zip(batch.keys, sums, strict=True))
            progress(done, len(steps), note)
    return PrecomputedReference(_gather(own))


def _gather(own: dict[tuple[int, int], Tensor]) -> dict[tuple[int, int], Tensor]:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return own
    parts: list[dict[tuple[int, int], Tensor]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, own)
    return {key: value for part in parts for key, value in part.items()}
