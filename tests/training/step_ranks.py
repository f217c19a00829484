"""Optimiser steps of a tiny policy in 1 to 4 gloo processes, for comparison."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

STEPS = 2
NUM_ITEMS, NEGATIVES = 60, 2


@dataclass(frozen=True)
class Cut:
    """An objective, and how a step is cut."""

    name: str
    global_batch: int
    micro_batch_size: int
    world_size: int
    global_batches: int = 1
    options: dict = field(default_factory=dict)
    dropout: float = 0.0


@functools.cache
def make_policy(model: Path, dropout: float):
    """A policy with an adapter that already does something."""
    from raypo.config import LoraConfig, PolicyConfig
    from raypo.policy.adapters import load_policy
    from raypo.policy.logps import PackedPolicy

    lora = LoraConfig(rank=4, dropout=dropout)
    policy = load_policy(PolicyConfig(dtype="float32", lora=lora), model, seed=1)
    torch.manual_seed(2)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:  # zero at first, which would leave lora_A without a gradient
            torch.nn.init.normal_(parameter, std=0.05)
    return PackedPolicy(policy)


def make_job(cut: Cut, rank: int, model: Path):
    """A job whose numbers are all deterministic, without training anything before."""
    from raypo.config import OptimiserConfig, PolicyConfig
    from raypo.data.candidates import TrainingCandidates
    from raypo.data.tokenisation import make_encoder
    from raypo.data.training_rows import TrainingRows
    from raypo.objectives import build_objective
    from raypo.objectives.yes_no import YesNoObjective
    from raypo.recommenders.build import build_recommender
    from raypo.training.batches import BatchMaker
    from raypo.training.engine import StepConfig, TorchEngine
    from raypo.training.reference import PrecomputedReference
    from raypo.training.sampler import BatchSampler
    from raypo.training.trainer import Job

    r = np.random.default_rng(0)
    users = cut.global_batch * cut.global_batches
    rows = STEPS * users
    train = pd.DataFrame(
        {
            "user_id": np.arange(rows) % 7,
            "history": [list(r.choice(NUM_ITEMS, r.integers(1, 6), False)) for _ in range(rows)],
            "target": r.integers(0, NUM_ITEMS, rows),
            "timestamp": np.arange(rows),
        }
    )
    policy = make_policy(model, cut.dropout)
    engine = TorchEngine(policy, StepConfig(OptimiserConfig(), cut.micro_batch_size))
    titles = [f"Film {chr(65 + i % 26)}{'a' * (i % 5)} {i}" for i in range(NUM_ITEMS)]
    encoder = make_encoder(PolicyConfig(), model, titles)
    is_yes_no = cut.name == "yes-no"
    objective = YesNoObjective() if is_yes_no else build_objective(cut.name, **cut.options)
    negatives = NEGATIVES if objective.needs_negatives else 0
    torch.manual_seed(3)
    settings = {"hidden": 8, "layers": 1, "heads": 1, "max_length": 10, "dropout": 0.0}
    recommender = build_recommender(settings, NUM_ITEMS).eval().requires_grad_(False)
    reference = PrecomputedReference(
        {
            (0, row): torch.from_numpy(r.normal(-30, 3, 1 + NEGATIVES).astype(np.float32))
            for row in range(rows)
        }
    )
    return Job(
        engine=engine,
        objective=objective,
        sampler=BatchSampler(
            rows=np.arange(rows),
            global_batch=cut.global_batch,
            global_batches=cut.global_batches,
            micro_batch_size=cut.micro_batch_size,
            world_size=cut.world_size,
            epochs=1,
            seed=0,
        ),
        make_batch=BatchMaker(
            TrainingRows.of_frame(train),
            TrainingCandidates(TrainingRows.of_frame(train), NUM_ITEMS, 10, seed=3),
            encoder,
            encoder.tokenizer.pad_token_id,
            negatives,
        ),
        optimiser=OptimiserConfig(),
        validation_set=None,  # no validation takes place
        eval_steps=1,
        rank=rank,
        reference=reference if objective.needs_reference else None,
        recommender=recommender if objective.needs_recommender else None,
    )


def take_steps(cut: Cut, rank: int, model: Path) -> list[dict]:
    """Loss, metrics, statistics and averaged gradients of each step, without moving weights."""
    from raypo.training.engine import _average_gradients
    from raypo.training.loader import make_global_batch
    from raypo.training.step import accumulate_gradients
    from raypo.training.step_timer import StepTimer

    job = make_job(cut, rank, model)
    job.engine.policy.train()
    named = {n: p for n, p in job.engine.policy.named_parameters() if p.requires_grad}
    results = []
    for step in range(STEPS):
        epoch, rows = job.sampler.rank_batches(step, rank)
        batches = [make_global_batch(job.make_batch, epoch, part) for part in rows]
        totals = accumulate_gradients(job, step, batches, StepTimer(job.engine.device))
        _average_gradients(list(named.values()))
        gradient = torch.cat([p.grad.flatten() for p in named.values()])
        job.engine.policy.zero_grad()
        results.append(
            {
                "metrics": totals.metrics,
                "statistics": job.objective.state_dict(),
                "gradient": gradient,
            }
        )
    return results


def run_rank(rank: int, cuts: dict[int, list[Cut]], folder: str, model: Path) -> None:
    """Take the steps of every cut that has this rank, and keep them in `folder`."""
    torch.set_num_threads(1)
    results = {}
    for world_size, of_size in cuts.items():
        if rank >= world_size:
            continue
        rendezvous = f"file://{folder}/rendezvous-{world_size}"
        dist.init_process_group("gloo", rendezvous, rank=rank, world_size=world_size)
        results[world_size] = [take_steps(cut, rank, model) for cut in of_size]
        dist.destroy_process_group()
    torch.save(results, f"{folder}/{rank}.pt")


def run_cuts(cuts: list[Cut], folder: Path, model: Path) -> list[list[list[dict]]]:
    """Results by cut and rank. Cuts of one rank run in this process."""
    sizes = sorted({cut.world_size for cut in cuts} - {1})
    by_size = {size: [cut for cut in cuts if cut.world_size == size] for size in sizes}
    if sizes:
        mp.spawn(run_rank, (by_size, str(folder), model), nprocs=sizes[-1], join=True)
    ranks = [
        torch.load(folder / f"{r}.pt", weights_only=True) for r in range(max(sizes, default=0))
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            [ranks[r][size][by_size[size].index(cut)] for r in range(size)]
            if (size := cut.world_size) > 1
            else [take_steps(cut, 0, model)]
            for cut in cuts
        ]
    finally:
        torch.set_num_threads(threads)
