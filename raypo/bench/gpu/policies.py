"""Random policies to measure on, and a training step of each variant."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raypo.bench.gpu.users import DrawnUsers, draw_users
from raypo.bench.model_configs import MODEL_CONFIGS, random_model
from raypo.bench.plain_layers import plain_layers
from raypo.bench.policy import naive_logps, repeated_rows, training_step
from raypo.policy.activation_checkpointing import Recompute, offloading_checkpoint
from raypo.policy.adapters import add_adapter
from raypo.policy.attention import row_multiple
from raypo.policy.compiled_layers import compile_layers
from raypo.policy.fused_lora import use_fused_lora
from raypo.policy.logps import PackedPolicy, causal_lm_of
from raypo.policy.packed import decoder_layers
from raypo.policy.packing import PackedResponses, pack_responses

PADDING = 0
VARIANTS = {
    "packed": "raypo: each distinct token once, LoRA layers by PEFT",
    "packed_fused": "packed, each LoRA layer one operation",
    "packed_triton": "packed_fused, the LM head's softmax by Triton kernels",
    "packed_offloaded": "packed_fused, all layers recomputed, their inputs in the host's memory",
    "packed_compiled": "packed_fused, decoder layers compiled for any length",
    "naive": "a row per response, logits of whole rows, as public trainers do",
    "naive_recomputed": "naive, all layers recomputed in backward",
}


@dataclass(frozen=True)
class Lora:
    """An adapter on all linear layers, as `policy.lora` describes it."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: str = "all-linear"


@dataclass(frozen=True)
class RandomPolicy:
    """A decoder with random weights and a new adapter, and users to train it on."""

    name: str
    model: Any
    policy: PackedPolicy
    users: DrawnUsers
    device: torch.device

    def pack(self, users: int, negatives: int) -> PackedResponses:
        """Packed rows of the first users."""
        drawn = self.users.first(users, negatives)
        packed = pack_responses(drawn.prompts, drawn.responses, PADDING, multiple_of=row_multiple())
        return packed.to(self.device)

    def step(self, variant: str, users: int, negatives: int) -> Callable[[], None]:
        """Forward and backward of one of `VARIANTS`, its inputs already made."""
        forward = self._forward(variant, users, negatives)
        trained = [one for one in self.model.parameters() if one.requires_grad]
        return training_step(trained, forward, lambda: self._layers_of(variant))

    def _forward(self, variant: str, users: int, negatives: int) -> Callable[[], Tensor]:
        if not variant.startswith("naive"):
            packed = self.pack(users, negatives)
            recomputed = len(decoder_layers(self.model)) if variant == "packed_offloaded" else None
            return lambda: self.policy(packed, recomputed_layers=recomputed)
        rows = repeated_rows(self.users.first(users, negatives), PADDING, self.device)
        return lambda: naive_logps(self.model, *rows)

    @contextlib.contextmanager
    def _layers_of(self, variant: str) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(plain_layers(variant == "packed" or variant.startswith("naive")))
            if variant == "packed_triton":
                stack.enter_context(triton_head(self.model))
            if variant == "packed_offloaded":
                stack.enter_context(_offloaded_inputs(self.model))
            if variant == "packed_compiled":
                stack.enter_context(compiled_layers(self.model))
            if variant == "naive_recomputed":
                stack.enter_context(_recomputed_layers(self.model))
            yield


def make_policy(
    name: str,
    device: torch.device,
    most_users: int,
    most_negatives: int,
    seed: int,
    dtype: torch.dtype = torch.bfloat16,
    recompute: Recompute = "auto",
    lora: Lora | None = None,
) -> RandomPolicy:
    """A random policy of a well-known size, its adapter moved off zero.

    Args:
        name: key of `MODEL_CONFIGS`.
        device: where it is made.
        most_users: users that are drawn.
        most_negatives: negatives of each.
        seed: of weights, adapter and users.
        dtype: of the base weights.
        recompute: layers recomputed in backward, as of `PackedPolicy`.
        lora: the adapter.
    """
    base = random_model(name, dtype, seed, device)
    model = add_adapter(base, lora or Lora(), seed).to(device)
    generator = torch.Generator(device).manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:  # a new adapter changes nothing, half of its gradients are 0
            parameter.data.normal_(0, 0.02, generator=generator)
    model.train()
    use_fused_lora(model)
    vocabulary = MODEL_CONFIGS[name]["vocab_size"]
    users = draw_users(most_users, most_negatives, vocabulary, seed)
    return RandomPolicy(name, model, PackedPolicy(model, recompute=recompute), users, device)


@contextlib.contextmanager
def compiled_layers(model: nn.Module) -> Iterator[None]:
    """Decoder layers compiled for any length, on their first call."""
    layers = decoder_layers(model)
    if not hasattr(layers[0], "_compiled_before"):
        compile_layers(model)
    for layer in layers:
        layer._compiled_before = getattr(layer, "_compiled_before", layer._compiled_call_impl)
        layer._compiled_call_impl = layer._compiled_before
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None


@contextlib.contextmanager
def triton_head(model: Any) -> Iterator[None]:
    """The LM head's softmax by Triton kernels; `parity` compares them."""
    head = causal_lm_of(model).get_output_embeddings()
    head.uses_kernel = True
    try:
        yield
    finally:
        head.uses_kernel = False


@contextlib.contextmanager
def _offloaded_inputs(model: nn.Module) -> Iterator[None]:
    layers = decoder_layers(model)
    before = [layer._gradient_checkpointing_func for layer in layers]
    for layer in layers:
        layer._gradient_checkpointing_func = offloading_checkpoint
    try:
        yield
    finally:
        for layer, function in zip(layers, before, strict=True):
            layer._gradient_checkpointing_func = function


@contextlib.contextmanager
def _recomputed_layers(model: nn.Module) -> Iterator[None]:
    layers = decoder_layers(model)
    for layer in layers:
        layer.gradient_checkpointing = True
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = False


def free(device: torch.device) -> None:
    """Give unused memory back, so that the next measurement finds all of it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
