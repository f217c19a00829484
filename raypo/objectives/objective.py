"""An objective: reward x negatives x selection x temperature x aggregation x margin x link."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from raypo.objectives.aggregation import AGGREGATIONS
from raypo.objectives.batch import GradientScope, ObjectiveOutput, PreferenceBatch
from raypo.objectives.collectives import Collective
from raypo.objectives.links import Link, Logistic, Smoothed
from raypo.objectives.loss_context import LossContext, ParamValue
from raypo.objectives.margins import FixedMargin, Margin
from raypo.objectives.moments import Moments, join_moments, merge_moments
from raypo.objectives.rewards import REWARDS, Reward
from raypo.objectives.selection import All, Selection
from raypo.objectives.sharing import NegativeSet, NegativeSource, Own, Shared
from raypo.objectives.temperature import FixedBeta, Temperature

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# Moments that the temperature and the margin read of one batch, merged over ranks.
_PartMoments = tuple[list[Moments], list[Moments]]


@dataclass
class Objective:
    """A composed preference objective; call it with a PreferenceBatch.

    The loss is the mean over users of the global batch of the link of the aggregated reward margins
    beta_i (R+ - R-_i). Log-probs are converted to float32 first.

    Attributes:
        name: the preset's name, or `composed`.
        reward, negatives, selection, temperature, aggregation, margin, link: the parts.
        process_group: ranks that share a global batch; None is the default group.
        training: moving statistics are updated only while it is True.
        statistics: moving statistics by name; empty before the first step.
    """

    name: str
    reward: Reward = REWARDS["reference"]
    negatives: NegativeSource = field(default_factory=Own)
    selection: Selection = field(default_factory=All)
    temperature: Temperature = field(default_factory=FixedBeta)
    aggregation: str = "pairwise"
    margin: Margin = field(default_factory=FixedMargin)
    link: Link = field(default_factory=Logistic)
    process_group: ProcessGroup | None = field(default=None, repr=False)
    training: bool = True
    statistics: dict[str, float] = field(default_factory=dict)
    _collective: Collective | None = field(default=None, repr=False)
    _in_step: bool = field(default=False, repr=False)
    _step_moments: list[_PartMoments] = field(default_factory=list, repr=False)

    @property
    def beta(self) -> float:
        """The temperature's base value."""
        return self.temperature.beta

    @property
    def confidence_baseline(self) -> float | None:
        """R_0 of NAPO's margin; None before the first batch or with another margin."""
        return self.statistics.get("confidence_baseline")

    @property
    def needs_reference(self) -> bool:
        """Whether batches need reference log-probs."""
        return any(reward.needs_reference for reward in self._rewards())

    @property
    def needs_recommender(self) -> bool:
        """Whether batches need the recommender's embeddings or scores."""
        return isinstance(self.negatives, Shared) or bool(self.margin.inputs or self.link.inputs)

    @property
    def gradient_scope(self) -> GradientScope:
        """What the derivative of the loss for a user's log-probs depends on, see GradientScope."""
        moving = self.temperature.statistics or self.margin.statistics
        return "batch" if isinstance(self.negatives, Shared) or moving else "user"

    @property
    def collective_seconds(self) -> float:
        """Seconds spent so far in gathers and reductions."""
        return 0.0 if self._collective is None else self._collective.seconds

    @property
    def needs_negatives(self) -> bool:
        """Whether batches need negatives: preference objectives do."""
        return True

    def train(self) -> None:
        """Update moving statistics."""
        self.training = True

    def eval(self) -> None:
        """Freeze moving statistics."""
        self.training = False

    def state_dict(self) -> dict[str, float]:
        """Moving statistics."""
        return dict(self.statistics)

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """Restore moving statistics from `state_dict`; an empty mapping is a fresh start."""
        known = {*self.temperature.statistics, *self.margin.statistics}
        self.statistics = {
            name: float(value)
            for name, value in state.items()
            if name in known and value is not None
        }

    def __call__(self, batch: PreferenceBatch) -> ObjectiveOutput:
        """Loss and metrics of this rank's batch. Every rank must call it.

        In training, moving statistics are updated after each call, or once after the calls of a
        `one_step` block.

        Raises:
            ValueError: an input that the composition needs is missing.
        """
        batch.require(self.name, *self._inputs())
        if self._collective is None:
            self._collective = Collective(self.process_group)
        collective = self._collective
        chosen, own = self.reward(batch)
        chosen_measures, columns = self._measures(batch)
        negatives = self.negatives.negative_set(batch, columns, collective)
        context = self._context(batch, negatives, chosen_measures)
        local = [part.moments(context) for part in (self.temperature, self.margin)]
        empty = torch.zeros(0, dtype=torch.float64, device=own.device)
        stats = torch.cat([empty, *itertools.chain.from_iterable(local)])
        rejected, all_stats = self.negatives.rewards(own, negatives, stats, collective)
        merged = iter(
            [merge_moments(part) for part in torch.split(all_stats, 3, dim=1)] if len(stats) else []
        )
        moments = [list(itertools.islice(merged, len(part))) for part in local]

        selected = self.selection(context.chosen_logps, context.rejected_logps, context.valid)
        beta = self.temperature(context, selected, moments[0], self.statistics)
        margin = self.margin(context, moments[1], self.statistics)
        reward_margins = beta.value * (chosen[:, None] - rejected)
        scores, weights = AGGREGATIONS[self.aggregation](reward_margins, selected, margin.value)
        losses = (weights * self.link(scores, context)).sum(dim=1)
        metrics, users = self._metrics(context, (chosen, own), selected, losses, (beta, margin))
        if self.training:
            self._step_moments.append((moments[0], moments[1]))
            if not self._in_step:
                self._update_statistics()
        return ObjectiveOutput(losses.sum() * (collective.world_size / users), metrics)

    @contextlib.contextmanager
    def one_step(self) -> Iterator[None]:
        """Calls in the block are one optimiser step: statistics are updated once, at its end."""
        self._in_step, self._step_moments = True, []
        try:
            yield
        finally:
            self._in_step = False
        self._update_statistics()

    def of_rank(self) -> Objective:
        """A copy for which this rank's batch is the whole batch and statistics do not move."""
        return replace(self, training=False, _collective=Collective(alone=True))

    def _update_statistics(self) -> None:
        """Update by the moments of all batches since the last update."""
        seen, self._step_moments = self._step_moments, []
        for index, part in enumerate((self.temperature, self.margin)):
            # The moments of one kind, of all batches.
            kinds = zip(*(moments[index] for moments in seen), strict=True)
            joined = [join_moments(kind) for kind in kinds]
            if joined:
                self.statistics |= part.updated(self.statistics, joined)

    def _rewards(self) -> list[Reward]:
        measures = (self.temperature.measure, self.margin.measure)
        return [self.reward, *(measure for measure in measures if measure is not None)]

    def _inputs(self) -> list[str]:
        """Inputs that the composition needs beside the log-probs."""
        names: list[str] = []
        if any(reward.needs_lengths for reward in self._rewards()):
            names += ["chosen_lengths", "rejected_lengths"]
        if self.needs_reference:
            names += ["reference_chosen_logps", "reference_rejected_logps"]
        if self.needs_recommender:
            names += ["user_embeddings", "rejected_items"]
        if isinstance(self.negatives, Shared) and self.negatives.mask_collisions:
            names += ["chosen_items", "history_items"]
        if isinstance(self.link, Smoothed):
            names += ["chosen_items", "rejected_items"]
        return [*names, *self.margin.inputs, *self.link.inputs]

    def _measures(self, batch: PreferenceBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Detached rewards that parts read, of the chosen [b] and the sampled negatives [b, n]."""
        chosen, rejected = {}, {"logps": batch.rejected_logps.detach().float()}
        measures = (("temperature", self.temperature.measure), ("margin", self.margin.measure))
        for part, measure in measures:
            if measure is not None:
                of_chosen, of_rejected = measure(batch)
                chosen[part], rejected[part] = of_chosen.detach(), of_rejected.detach()
        return chosen, rejected

    def _context(
        self, batch: PreferenceBatch, negatives: NegativeSet, chosen: dict[str, Tensor]
    ) -> LossContext:
        return LossContext(
            batch=batch,
            beta=self.beta,
            chosen_logps=batch.chosen_logps.detach().float(),
            rejected_logps=negatives.columns["logps"],
            items=negatives.items,
            valid=negatives.valid,
            reward_margins={
                part: chosen[part][:, None] - negatives.columns[part] for part in chosen
            },
        )

    @torch.no_grad()
    def _metrics(
        self,
        context: LossContext,
        rewards: tuple[Tensor, Tensor],
        selected: Tensor,
        losses: Tensor,
        params: tuple[ParamValue, ParamValue],
    ) -> tuple[dict[str, float], int]:
        """Global metrics and the global count of users: one reduction, one transfer to the host."""
        chosen, own = rewards
        beta, margin = params
        # Rewards are reported with the batch's beta; a per-negative beta belongs to a pair.
        scale = beta.value if beta.value.dim() == 0 else self.beta
        means = {
            "loss": losses,
            "rewards/chosen": scale * chosen,
            "rewards/rejected": scale * own.mean(dim=1),
            "rewards/margin": scale * (chosen - own.mean(dim=1)),
            "rewards/accuracy": (chosen[:, None] > own).all(dim=1),
            "negatives": context.valid.sum(dim=1),
            "boundary_negatives": selected.sum(dim=1),
            "logps/chosen": context.chosen_logps,
            "logps/rejected": context.batch.rejected_logps.mean(dim=1),
        }
        at_boundary = (context.rejected_logps >= context.chosen_logps[:, None]) & context.valid
        sums = {
            "beta": _over(selected, beta.value),
            "gamma": _over(selected, margin.value),
            "boundary_ratio": at_boundary,
        }
        counts = [selected, context.valid, torch.ones_like(losses)]
        parts = [*means.values(), *sums.values(), *counts]
        assert self._collective is not None
        stacked = torch.stack([part.sum(dtype=torch.float64) for part in parts])
        totals = self._collective.all_reduce_sum(stacked).tolist()
        num_selected, num_valid, users = totals[-3:]
        metrics = {name: value / max(users, 1) for name, value in zip(means, totals, strict=False)}
        over = {"beta": num_selected, "gamma": num_selected, "boundary_ratio": num_valid}
        for (name, count), value in zip(over.items(), totals[len(means) : -3], strict=True):
            metrics[name] = value / max(count, 1)
        return metrics | dict(beta.metrics) | dict(margin.metrics), int(users)


def _over(selected: Tensor, value: Tensor) -> Tensor:
    """A tensor whose sum is that of `value` (scalar or [b, E]) over the selected [b, E]."""
    if value.dim() == 0:
        return value.double() * selected.sum()
    return torch.where(selected, value, 0.0)
