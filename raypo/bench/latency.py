"""Steps of local gloo ranks whose collectives are slowed down, with sharing and without.

Each rank trains a small decoder-like network on random tokens, averages its gradients over the
ranks, and computes its objective. Every collective, of the objective and of the gradients, waits
for the added latency first. What sharing adds to a step is then seen beside what training pays
anyway.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from raypo.bench.simulated_ranks import synthetic_batch
from raypo.io.progress import Progress, no_progress
from raypo.objectives import Objective, PreferenceBatch, build_objective
from raypo.objectives.collectives import Collective

_WIDTH, _VOCABULARY, _LAYERS, _RESPONSE_TOKENS = 256, 1024, 4, 6
_TIMEOUT = timedelta(seconds=120)


@dataclass
class DelayedCollective(Collective):
    """Collectives that take `latency` seconds more each.

    Attributes:
        latency: seconds that every rank sleeps before a collective.
        waited: seconds in collectives so far, with the sleep and with waiting for slower ranks.
        count: collectives so far.
    """

    latency: float = 0.0
    waited: float = field(default=0.0, repr=False)
    count: int = field(default=0, repr=False)

    def _all_gather(self, sent: Tensor) -> Tensor:
        started = self._delay()
        received = super()._all_gather(sent)
        self.waited += time.perf_counter() - started
        return received

    def _all_reduce(self, values: Tensor) -> None:
        started = self._delay()
        super()._all_reduce(values)
        self.waited += time.perf_counter() - started

    def _delay(self) -> float:
        started = time.perf_counter()
        self.count += 1
        time.sleep(self.latency)
        return started


@dataclass(frozen=True)
class LatencySettings:
    """What to measure.

    Attributes:
        objectives: presets, measured in turn; the first is what the others are compared with.
        num_ranks: local processes, with one thread each.
        users: of each rank.
        num_negatives: per user.
        latencies: seconds added to every collective.
        repeats: steps that count, of each objective and latency.
    """

    objectives: Sequence[str]
    num_ranks: int
    users: int
    num_negatives: int
    latencies: Sequence[float]
    repeats: int


def bench_latency(
    settings: LatencySettings, progress: Progress = no_progress
) -> Iterator[dict[str, object]]:
    """Plain values for a table, by latency and objective."""
    progress(0, 1, f"{settings.num_ranks} ranks")
    with tempfile.TemporaryDirectory() as folder:
        spawn(_run_rank, (settings, folder), nprocs=settings.num_ranks)  # type: ignore[no-untyped-call]
        steps = torch.load(Path(folder) / "steps.pt")
    progress(1, 1, "")
    for latency in settings.latencies:
        baseline = steps[settings.objectives[0], latency]
        for name in settings.objectives:
            measured = steps[name, latency]
            seconds = statistics.median(step["seconds"] for step in measured)
            in_collectives = statistics.median(step["collectives"] for step in measured)
            # Of pairs that ran one after the other: the machine is busier at some times.
            added = statistics.median(
                step["seconds"] - before["seconds"]
                for step, before in zip(measured, baseline, strict=True)
            )
            yield {
                "added latency (ms)": 1000 * latency,
                "objective": name,
                "collectives of the objective": measured[-1]["count"],
                "ms in them": round(1000 * in_collectives, 1),
                "step (ms)": round(1000 * seconds, 1),
                "% of the step": round(100 * in_collectives / seconds, 1),
                "added to the step (ms)": round(1000 * added, 1),
            }


class _SmallPolicy(nn.Module):
    """Summed log-probs [b, 1 + n] of random responses, by residual layers without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_VOCABULARY, _WIDTH)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(_WIDTH, 4 * _WIDTH), nn.GELU(), nn.Linear(4 * _WIDTH, _WIDTH))
            for _ in range(_LAYERS)
        )
        self.head = nn.Linear(_WIDTH, _VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        logps = self.head(hidden).log_softmax(dim=-1)
        of_responses: Tensor = logps.gather(-1, tokens[..., None])[..., 0].sum(dim=-1)
        return of_responses


def _run_rank(rank: int, settings: LatencySettings, folder: str) -> None:
    torch.set_num_threads(1)
    world: dict[str, Any] = {"rank": rank, "world_size": settings.num_ranks}
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", timeout=_TIMEOUT, **world)
    torch.manual_seed(0)
    policy = _SmallPolicy()
    optimiser = torch.optim.SGD(policy.parameters(), lr=1e-3)
    shape = (settings.users, 1 + settings.num_negatives, _RESPONSE_TOKENS)
    batch = synthetic_batch(settings.users, settings.num_negatives, torch.device("cpu"))
    inputs = (torch.randint(_VOCABULARY, shape), batch)
    steps: dict[tuple[str, float], list[dict[str, float]]] = {}
    # One more round, not counted, warms up. Objectives take turns, as the machine is not quiet.
    for turn in range(settings.repeats + 1):
        for latency in settings.latencies:
            for name in settings.objectives:
                collective = DelayedCollective(latency=latency)
                objective = build_objective(name)
                assert isinstance(objective, Objective)
                objective = replace(objective, _collective=collective)
                # A rank knows the widest batch after its first step.
                collective.capacity = settings.users
                dist.barrier()
                started = time.perf_counter()
                _step(policy, optimiser, objective, inputs, latency)
                seconds = time.perf_counter() - started
                if turn:
                    steps.setdefault((name, latency), []).append(
                        {
                            "seconds": seconds,
                            "collectives": collective.waited,
                            "count": collective.count,
                        }
                    )
    if rank == 0:
        torch.save(steps, Path(folder) / "steps.pt")
    dist.destroy_process_group()


def _step(
    policy: _SmallPolicy,
    optimiser: torch.optim.Optimizer,
    objective: Objective,
    inputs: tuple[Tensor, PreferenceBatch],
    latency: float,
) -> None:
    """Forward, objective, backward, averaged gradients and an update."""
    tokens, batch = inputs
    logps = policy(tokens)
    loss = objective(replace(batch, chosen_logps=logps[:, 0], rejected_logps=logps[:, 1:])).loss
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [each for each in policy.parameters() if each.grad is not None]
    gradients = torch.cat([each.grad.flatten() for each in parameters if each.grad is not None])
    time.sleep(latency)
    dist.all_reduce(gradients)
    optimiser.step()
    optimiser.zero_grad()
