"""Every engine takes the same steps, and resumes from its saved state exactly."""

import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from raypo.assets import tiny_random
from raypo.config import ClusterConfig, LoraConfig, OptimiserConfig, PolicyConfig
from raypo.policy import pack_responses
from raypo.policy.logps import PackedPolicy

pytestmark = pytest.mark.slow

ENGINES = {
    "torch": ({"engine": "torch"}, "float32"),
    "zero0": ({"zero_stage": 0}, "float32"),
    "zero0-bf16": ({"zero_stage": 0}, "bfloat16"),
    "zero2": ({"zero_stage": 2}, "float32"),
    "zero2-bf16": ({"zero_stage": 2}, "bfloat16"),
    "zero3-bf16": ({"zero_stage": 3}, "bfloat16"),
}
STEPS, STOP, ACCUMULATION, RATE = 4, 2, 2, 1e-2


def make(cluster, dtype, folder):
    from raypo.policy.adapters import load_policy
    from raypo.training.engine import StepConfig, make_engine

    config = PolicyConfig(dtype=dtype, lora=LoraConfig(rank=4))
    lora_float32 = cluster.engine == "torch"
    model = load_policy(config, folder, seed=1, lora_float32=lora_float32)
    steps = StepConfig(OptimiserConfig(), ACCUMULATION, micro_batch_size=2, dtype=dtype)
    return make_engine(PackedPolicy(model), cluster, steps)


def take_steps(engine, first, last, rank):
    losses = []
    for step in range(first, last):
        total = 0.0
        for micro in range(ACCUMULATION):
            generator = torch.Generator().manual_seed(step * 100 + micro * 10 + rank)
            tokens = torch.randint(2, 500, (2, 12), generator=generator).tolist()
            packed = pack_responses([t[:8] for t in tokens], [[t[8:], [5, 6]] for t in tokens], 0)
            loss = -engine.logps(packed)[:, 0].mean()
            engine.backward(loss)
            total += loss.item() / ACCUMULATION
        norm = engine.step(RATE)
        assert norm > 0
        losses.append(total)
    return losses


def train_rank(rank, changes, dtype, folder, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{results}/rendezvous", rank=rank, world_size=2)
    import os

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    cluster = ClusterConfig(**changes)
    engine = make(cluster, dtype, folder)
    losses = take_steps(engine, 0, STOP, rank)
    state = engine.optimiser_state()
    losses += take_steps(engine, STOP, STEPS, rank)
    resumed = make(cluster, dtype, folder)
    resumed.load_optimiser_state(state)
    result = {
        "losses": losses,
        "resumed": take_steps(resumed, STOP, STEPS, rank),
        "weights": engine.trained_weights(),
        "resumed_weights": resumed.trained_weights(),
    }
    torch.save(result, f"{results}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results():
    """Both ranks' results of an engine's run, which is made once."""
    model, done = tiny_random(), {}

    def run(name):
        if name not in done:
            with tempfile.TemporaryDirectory() as folder:
                mp.spawn(train_rank, (*ENGINES[name], model, folder), nprocs=2, join=True)
                done[name] = [
                    torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)
                ]
        return done[name]

    return run


@pytest.mark.parametrize("name", ENGINES)
def test_a_resumed_run_has_the_same_losses_and_weights(results, name):
    for result in results(name):
        assert result["resumed"] == pytest.approx(result["losses"][STOP:], rel=1e-6)
        for key, weight in result["weights"].items():
            torch.testing.assert_close(result["resumed_weights"][key], weight, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ENGINES)
def test_ranks_end_with_the_same_weights(results, name):
    one, other = results(name)
    assert len(one["weights"]) == 28  # A and B of 7 linear layers in 2 blocks
    for key, weight in one["weights"].items():
        assert torch.equal(weight, other["weights"][key]), key


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("zero0", 1e-5),
        ("zero2", 1e-5),
        ("zero0-bf16", 0.03),
        ("zero2-bf16", 0.03),
        ("zero3-bf16", 0.03),
    ],
)
def test_deepspeed_takes_the_steps_of_plain_torch(results, name, tolerance):
    for ours, plain in zip(results(name), results("torch"), strict=True):
        assert ours["losses"] == pytest.approx(plain["losses"], rel=tolerance)
