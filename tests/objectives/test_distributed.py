"""Two processes with a part of the batch each give what one process with the whole gives."""

import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from raypo.objectives import build_objective
from tests.objectives.reference import make_case
from tests.objectives.test_presets import batch_of

pytestmark = pytest.mark.slow
STEPS = 2


def take_steps(name, options, rows=slice(None)):
    """Loss, gradients, metrics and state of each step on these rows of the batches."""
    objective = build_objective(name, **options)
    answers = []
    for step in range(STEPS):
        batch = batch_of(make_case(step), rows)
        out = objective(batch)
        out.loss.backward()
        logps = (batch.chosen_logps, batch.rejected_logps)
        gradients = [tensor.grad for tensor in logps if tensor.grad is not None]
        answers.append((out.loss.item(), gradients, out.metrics, objective.state_dict()))
    return answers


def worker(rank, parts, name, options, rendezvous, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=len(parts))
    answers = take_steps(name, options, slice(*parts[rank]))
    torch.save(answers, Path(results) / f"{rank}.pt")
    dist.destroy_process_group()


def run_workers(parts, name, options):
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = f"{folder}/rendezvous"
        arguments = (parts, name, options, rendezvous, folder)
        mp.spawn(worker, arguments, nprocs=len(parts), join=True)
        return [torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(len(parts))]


@pytest.mark.parametrize("parts", [[(0, 3), (3, 6)], [(0, 2), (2, 6)]], ids=["equal", "unequal"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("napo", {}), ("napo", {"rho": 1.0, "mask_collisions": False}), ("s-dpo", {}), ("sft", {})],
)
def test_loss_gradients_metrics_and_state_equal_one_process(name, options, parts):
    workers, whole = run_workers(parts, name, options), take_steps(name, options)
    for step in range(STEPS):
        loss, gradients, metrics, state = whole[step]
        per_worker = [answers[step] for answers in workers]
        mean = sum(answer[0] for answer in per_worker) / len(parts)
        assert mean == pytest.approx(loss, rel=1e-6)
        for index, gradient in enumerate(gradients):
            # The engine averages gradients over workers; each log-prob lives on one of them.
            joined = torch.cat([answer[1][index] for answer in per_worker]) / len(parts)
            torch.testing.assert_close(joined, gradient, rtol=1e-5, atol=1e-7)
        for answer in per_worker:
            assert answer[2] == pytest.approx(metrics, rel=1e-6)
        assert per_worker[0][3] == per_worker[1][3]
        if state.get("confidence_baseline") is not None:
            assert per_worker[0][3] == pytest.approx(state, rel=1e-9)


def test_how_far_the_gradient_reaches():
    parts = [(0, 3), (3, 6)]
    reach = {}
    for gradient in ("all", "local", "own"):
        answers = run_workers(parts, "napo", {"rho": 1.0, "sharing_gradient": gradient})
        reach[gradient] = torch.cat([answer[0][1][1] for answer in answers]) / len(parts)
    own_only = take_steps("napo", {"rho": 1.0, "sharing_gradient": "own"})[0][1][1]
    torch.testing.assert_close(reach["own"], own_only, rtol=1e-5, atol=1e-7)
    # Every rejected log-prob is pushed down by all who share it: the further, the more.
    assert (reach["own"] <= reach["local"]).all() and (reach["own"] < reach["local"]).any()
    assert (reach["local"] <= reach["all"]).all() and (reach["local"] < reach["all"]).any()
