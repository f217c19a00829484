"""What objectives without moving statistics have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from torch import Tensor

from raypo.objectives.collectives import Collective

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass
class StatelessObjective:
    """Reductions over ranks, and the methods by which a loop treats all objectives alike."""

    name: str
    process_group: ProcessGroup | None = field(default=None, repr=False)
    needs_reference: bool = False
    needs_recommender: bool = False
    _collective: Collective | None = field(default=None, repr=False)

    @property
    def collective_seconds(self) -> float:
        """Seconds spent so far in reductions."""
        return 0.0 if self._collective is None else self._collective.seconds

    def one_step(self) -> contextlib.AbstractContextManager[None]:
        """Do nothing: there are no moving statistics."""
        return contextlib.nullcontext()

    def of_rank(self) -> Self:
        """A copy for which this rank's batch is the whole batch."""
        return replace(self, process_group=None, _collective=Collective(alone=True))

    def train(self) -> None:
        """Do nothing: there are no moving statistics."""

    def eval(self) -> None:
        """Do nothing: there are no moving statistics."""

    def state_dict(self) -> dict[str, float]:
        """Empty: there are no moving statistics."""
        return {}

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """Do nothing: there are no moving statistics."""

    def global_sums(self, sums: Tensor) -> tuple[list[float], int]:
        """Sums [k] over all ranks, and the number of ranks."""
        if self._collective is None:
            self._collective = Collective(self.process_group)
        found: list[float] = self._collective.all_reduce_sum(sums).tolist()
        return found, self._collective.world_size
