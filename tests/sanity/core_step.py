"""A policy trained by an objective, by what `raypo[core]` installs alone: run by `test_core.py`."""

from types import SimpleNamespace

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from raypo.objectives import PreferenceBatch, build_objective
from raypo.policy import PackedPolicy, pack_responses
from raypo.policy.adapters import add_adapter
from raypo.training.engine import StepConfig, TorchEngine

torch.manual_seed(0)
sizes = LlamaConfig(
    vocab_size=99,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    attn_implementation="sdpa",
)
lora = SimpleNamespace(rank=4, alpha=8.0, dropout=0.0, target_modules="all-linear")
optimiser = SimpleNamespace(learning_rate=1e-2, weight_decay=0.0, max_grad_norm=1.0)
policy = PackedPolicy(add_adapter(LlamaForCausalLM(sizes), lora, 0))
engine = TorchEngine(policy, StepConfig(optimiser, micro_batch_size=2))
packed = pack_responses([[1, 2, 3], [4, 5]], [[[6, 7], [6, 8]], [[9], [10, 11]]], 0)
objective = build_objective("sims-dpo")
losses = []
for _ in range(8):
    logps = engine.logps(packed)
    leaf = logps.detach().requires_grad_()
    loss = objective(PreferenceBatch(leaf[:, 0], leaf[:, 1:])).loss
    loss.backward()
    engine.backward(logps, leaf.grad, is_last=True)
    engine.step(1e-2)
    losses.append(float(loss.detach()))
assert losses[-1] < losses[0] - 0.01, losses
