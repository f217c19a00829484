"""Every engine takes the same steps, and resumes from its saved state exactly.

The ranks' batches are ragged: other numbers of tokens, and with `auto` other numbers of layers that
backward recomputes. Their prompts have markers, so that a projector is trained beside the adapter.
"""

import math
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from raypo.assets import tiny_random
from raypo.config import ClusterConfig, LoraConfig, OptimiserConfig, PolicyConfig
from raypo.data.hints import Markers
from raypo.policy import pack_responses
from raypo.policy.logps import PackedPolicy, causal_lm_of

pytestmark = pytest.mark.slow

ENGINES = {
    "torch": ({"engine": "torch"}, "float32"),
    "torch-bf16": ({"engine": "torch"}, "bfloat16"),
    "zero0": ({"zero_stage": 0}, "float32"),
    "zero0-bf16": ({"zero_stage": 0}, "bfloat16"),
    "zero2": ({"zero_stage": 2}, "float32"),
    "zero2-bf16": ({"zero_stage": 2}, "bfloat16"),
    "zero3": ({"zero_stage": 3}, "float32"),
    "zero3-bf16": ({"zero_stage": 3}, "bfloat16"),
}
STEPS, STOP, ACCUMULATION, RATE = 4, 2, 2, 1e-2
FEATURES = 6  # of a marker
RESTING = (0, 3)  # steps without vectors, in which the projector rests


def make(cluster, dtype, folder):
    from raypo.policy.adapters import load_policy
    from raypo.policy.projector import new_projector
    from raypo.training.engine import StepConfig, gathered, loading, make_engine

    with loading(cluster, dtype):
        model = load_policy(PolicyConfig(dtype=dtype, lora=LoraConfig(rank=4)), folder, seed=1)
    base = [p for p in model.parameters() if not p.requires_grad]
    if cluster.partitions_weights:
        assert base and all(p.numel() < p.ds_numel for p in base)  # no rank holds a whole weight
    assert {p.dtype for p in base} == {getattr(torch, dtype)}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    with gathered(cluster, [model.get_input_embeddings().weight]):
        projector = new_projector(causal_lm_of(model), FEATURES, seed=2)
    policy = PackedPolicy(model, recompute="auto", projector=projector)
    return make_engine(policy, cluster, StepConfig(OptimiserConfig(), micro_batch_size=2))


def packed_users(step, micro, rank):
    """Two users; rank 1 has more tokens in their second responses."""
    generator = torch.Generator().manual_seed(step * 100 + micro * 10 + rank)
    tokens = torch.randint(2, 500, (2, 40), generator=generator).tolist()
    end = 12 + 20 * rank
    markers = [Markers([1, 4], torch.randn(2, FEATURES, generator=generator).numpy())] * 2
    responses = [[[5, 6, 7], t[8:end]] for t in tokens]
    return pack_responses([t[:8] for t in tokens], responses, 0, markers=markers)


def projector_state(engine):
    return {n: v for n, v in engine.optimiser_state().items() if n.startswith("projector.")}


def take_steps(engine, first, last, rank, scale=1.0):
    losses, norms = [], []
    for step in range(first, last):
        total = 0.0
        for micro in range(ACCUMULATION):
            packed = packed_users(step, micro, rank)
            logps = engine.logps(packed.without_markers() if step in RESTING else packed)
            gradient = torch.full_like(logps, -scale / (len(logps) * ACCUMULATION))
            engine.backward(logps, gradient, micro == ACCUMULATION - 1)
            total -= logps.sum(dim=1).mean().item() / ACCUMULATION
        before = projector_state(engine) if step in RESTING and step else {}
        norms.append(engine.step(RATE, projector_rests=step in RESTING))
        for name, value in before.items():
            assert torch.equal(value, engine.optimiser_state()[name]), name
        losses.append(total)
    return losses, norms


def train_rank(rank, changes, dtype, folder, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{results}/rendezvous", rank=rank, world_size=2)
    import os

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    from raypo.policy import activation_checkpointing, lm_head

    lm_head._CHUNK_BYTES["cpu"] = 16 << 10  # several chunks of logits, other numbers on each rank
    activation_checkpointing._KEPT = 0.9
    cluster = ClusterConfig(**changes)
    engine = make(cluster, dtype, folder)
    losses, norms = take_steps(engine, 0, STOP, rank)
    state = engine.optimiser_state()
    more = take_steps(engine, STOP, STEPS, rank)
    resumed = make(cluster, dtype, folder)
    resumed.load_optimiser_state(state)
    result = {
        "losses": losses + more[0],
        "norms": norms + more[1],
        "resumed": take_steps(resumed, STOP, STEPS, rank)[0],
        "weights": engine.trained_weights(),
        "resumed_weights": resumed.trained_weights(),
        "infinite": take_steps(engine, 0, 1, rank, scale=float("inf"))[1][0],
        "weights_after": engine.trained_weights(),
    }
    own = packed_users(0, 0, rank)
    result["work"] = [engine.policy.num_recomputed_layers(own), engine.policy.num_head_chunks(own)]
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
def test_a_projector_that_rested_at_first_is_trained_later(results, name):
    (one, _) = results(name)
    projector = {key: value for key, value in one["weights"].items() if "projector" in key}
    assert len(projector) == 4
    assert all(float(value.abs().max()) > 0 for value in projector.values())
    # A new projector's outer bias is 0: it has moved in the steps with vectors.


@pytest.mark.parametrize("name", ENGINES)
def test_ranks_with_other_numbers_of_tokens_end_with_the_same_weights(results, name):
    one, other = results(name)
    # By themselves they would recompute and run the LM head at different counts.
    assert all(a != b for a, b in zip(one["work"], other["work"], strict=True))
    # A and B of 7 linear layers in 2 blocks; weight and bias of 2 layers of the projector.
    assert len(one["weights"]) == 28 + 4
    for key, weight in one["weights"].items():
        assert torch.equal(weight, other["weights"][key]), key


@pytest.mark.parametrize(
    ("name", "plain", "tolerance"),
    [
        ("zero0", "torch", 1e-5),
        ("zero2", "torch", 1e-5),
        ("zero3", "torch", 1e-5),
        ("zero0-bf16", "torch-bf16", 2e-3),
        ("zero2-bf16", "torch-bf16", 2e-3),
        ("zero3-bf16", "torch-bf16", 2e-3),
        ("torch-bf16", "torch", 0.03),
    ],
)
def test_engines_take_the_same_steps(results, name, plain, tolerance):
    for ours, expected in zip(results(name), results(plain), strict=True):
        # Only the first step has the same weights to the bit. Adam's first steps are nearly signs
        # of gradients, and each CPU's kernels round small bfloat16 gradients to another sign.
        later = tolerance if tolerance < 1e-3 else max(tolerance, 0.01)
        assert ours["losses"][0] == pytest.approx(expected["losses"][0], rel=tolerance)
        assert ours["losses"] == pytest.approx(expected["losses"], rel=later)
        # Before clipping: gradients of these losses are far above the norm of 1 that is clipped to.
        assert ours["norms"][0] == pytest.approx(expected["norms"][0], rel=10 * tolerance)
        assert min(ours["norms"]) > 5


@pytest.mark.parametrize("name", ENGINES)
def test_no_engine_steps_with_gradients_that_are_not_finite(results, name):
    for result in results(name):
        assert not math.isfinite(result["infinite"])
        for key, weight in result["weights"].items():
            assert torch.equal(weight, result["weights_after"][key]), key
