"""Four gloo processes that are shared by all tests: starting them takes longer than a test."""

from __future__ import annotations

import contextlib
from collections import Counter

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from raypo.objectives import build_objective, collectives
from tests.objectives.cases import batch_of, make_case

WORLD_SIZE = 4


def take_steps(name, options, seeds, shape, rows=slice(None), group=None, training=True):
    """Loss, gradients, metrics, statistics and collectives of each step on some rows of cases."""
    objective = build_objective(name, process_group=group, **options)
    results = []
    for step, seed in enumerate(seeds):
        if not training and step == len(seeds) - 1:
            objective.eval()
        batch = batch_of(make_case(seed, **shape), rows)
        with counted_collectives() as forward:
            out = objective(batch)
        with counted_collectives() as backward:
            out.loss.backward()
        logps = (batch.chosen_logps, batch.rejected_logps)
        results.append(
            {
                "loss": out.loss.item(),
                "gradients": [tensor.grad for tensor in logps if tensor.grad is not None],
                "metrics": out.metrics,
                "statistics": objective.state_dict(),
                "forward": dict(forward),
                "backward": dict(backward),
            }
        )
    return results


@contextlib.contextmanager
def counted_collectives():
    """How often the objective gathers and reduces, and the bytes that a rank sends."""
    counts = Counter()
    gather, reduce = collectives._all_gather, dist.all_reduce

    def counted_gather(output, sent, **options):
        counts["gathers"] += 1
        counts["gathered_bytes"] += sent.numel() * sent.element_size()
        return gather(output, sent, **options)

    def counted_reduce(values, **options):
        counts["reductions"] += 1
        counts["reduced_bytes"] += values.numel() * values.element_size()
        return reduce(values, **options)

    collectives._all_gather, dist.all_reduce = counted_gather, counted_reduce
    try:
        yield counts
    finally:
        collectives._all_gather, dist.all_reduce = gather, reduce


def _run_rank(rank, rendezvous, pipe):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=WORLD_SIZE)
    groups = {2: dist.new_group([0, 1]), WORLD_SIZE: dist.group.WORLD}
    while (work := pipe.recv()) is not None:
        name, options, seeds, shape, parts, training = work
        try:
            group = groups[len(parts)]
            rows = slice(*parts[rank])
            pipe.send(take_steps(name, options, seeds, shape, rows, group, training))
        except Exception as error:
            pipe.send(repr(error))
    dist.destroy_process_group()


class GlooRanks:
    """Gloo processes; `run` gives each rank its rows and returns their results."""

    def __init__(self, folder):
        context = mp.get_context("spawn")
        self.pipes, self.processes = [], []
        for rank in range(WORLD_SIZE):
            parent_end, child_end = context.Pipe()
            arguments = (rank, folder / "rendezvous", child_end)
            process = context.Process(target=_run_rank, args=arguments, daemon=True)
            process.start()
            self.pipes.append(parent_end)
            self.processes.append(process)

    def run(self, name, options, seeds, shape, parts, training=True):
        """Results by rank; `parts` are (start, end) rows of 2 or 4 ranks."""
        pipes = self.pipes[: len(parts)]
        for pipe in pipes:
            pipe.send((name, options, seeds, shape, parts, training))
        for pipe in pipes:
            assert pipe.poll(60), "a rank sent no result"
        results = [pipe.recv() for pipe in pipes]
        for result in results:
            assert not isinstance(result, str), result
        return results

    def close(self):
        """End the processes."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(20)
