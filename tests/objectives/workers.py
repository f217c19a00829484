"""Four gloo processes that stay up between tests: starting them costs more than a test does."""

from __future__ import annotations

import contextlib
from collections import Counter

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from raypo.objectives import build_objective, collectives
from tests.objectives.cases import batch_of, make_case

WORKERS = 4


def take_steps(name, options, seeds, shape, rows=slice(None), group=None, training=True):
    """Loss, gradients, metrics, statistics and collectives of each step on some rows of cases."""
    objective = build_objective(name, process_group=group, **options)
    answers = []
    for step, seed in enumerate(seeds):
        if not training and step == len(seeds) - 1:
            objective.eval()
        batch = batch_of(make_case(seed, **shape), rows)
        with counted_collectives() as forward:
            out = objective(batch)
        with counted_collectives() as backward:
            out.loss.backward()
        logps = (batch.chosen_logps, batch.rejected_logps)
        answers.append(
            {
                "loss": out.loss.item(),
                "gradients": [tensor.grad for tensor in logps if tensor.grad is not None],
                "metrics": out.metrics,
                "statistics": objective.state_dict(),
                "forward": dict(forward),
                "backward": dict(backward),
            }
        )
    return answers


@contextlib.contextmanager
def counted_collectives():
    """How often the objective gathers and reduces, and the bytes that a worker sends."""
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


def _serve(rank, rendezvous, pipe):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=WORKERS)
    groups = {2: dist.new_group([0, 1]), WORKERS: dist.group.WORLD}
    while (work := pipe.recv()) is not None:
        name, options, seeds, shape, parts, training = work
        try:
            group = groups[len(parts)]
            rows = slice(*parts[rank])
            pipe.send(take_steps(name, options, seeds, shape, rows, group, training))
        except Exception as error:
            pipe.send(repr(error))
    dist.destroy_process_group()


class Workers:
    """A pool of gloo processes; `run` gives each its rows and returns their answers."""

    def __init__(self, folder):
        context = mp.get_context("spawn")
        self.pipes, self.processes = [], []
        for rank in range(WORKERS):
            ours, theirs = context.Pipe()
            arguments = (rank, folder / "rendezvous", theirs)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, name, options, seeds, shape, parts, training=True):
        """Answers by rank; `parts` are (start, end) rows of 2 or 4 workers."""
        chosen = self.pipes[: len(parts)]
        for pipe in chosen:
            pipe.send((name, options, seeds, shape, parts, training))
        for pipe in chosen:
            assert pipe.poll(60), "a worker did not answer"
        answers = [pipe.recv() for pipe in chosen]
        for answer in answers:
            assert not isinstance(answer, str), answer
        return answers

    def close(self):
        """Let the processes end."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(20)
