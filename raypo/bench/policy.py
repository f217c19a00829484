"""Cost of a training step with many negatives: packed rows and what public trainers do instead.

Variants, each forward and backward through the adapter, on the same users and responses:

- `naive`: a row per response, prompt repeated, logits and log-softmax over whole sequences;
- `response_logits_only`: the same rows, logits only at positions that predict a response token;
- `packed`: each distinct token once (`raypo.policy`);
- `packed_plain`: the same with PEFT's LoRA layers and SDPA, which CPUs compute more slowly;
- `two_passes`: packed, with a forward pass without gradient before (gradient caching), as training
  does where users share across micro-batches;
- `sft`: packed with one response per user, the baseline that the others are compared with;
- `sft_plain`: the same with PEFT's LoRA layers and SDPA.

Multiply-adds are a lower bound of the work: each distinct token once through the decoder's linear
layers, each predicting position once through the LM head. Attention is left out, as is everything
that a perfect implementation could overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from raypo.bench.measure import Measurement, measure_in_turn
from raypo.bench.plain_layers import plain_layers
from raypo.io.progress import Progress, no_progress
from raypo.policy import pack_responses
from raypo.policy.activation_checkpointing import Recompute
from raypo.policy.attention import row_multiple
from raypo.policy.fused_lora import use_fused_lora
from raypo.policy.fused_norm import use_fused_norms
from raypo.policy.logps import PackedPolicy, causal_lm_of
from raypo.policy.packing import PackedResponses

if TYPE_CHECKING:
    from raypo.data.tokenisation import EncodedUsers

VARIANTS = ("naive", "response_logits_only", "packed", "packed_plain", "two_passes")
_SFT = ("sft", 0)
_SFT_PLAIN = ("sft_plain", 0)
# As public trainers compute them: PEFT's own layers and SDPA.
_PLAIN = ("naive", "response_logits_only", "packed_plain", "sft_plain")


@dataclass(frozen=True)
class PolicySettings:
    """What to measure.

    Attributes:
        num_negatives: numbers of negatives per user.
        variants: of `VARIANTS`; `sft` is always measured.
        repeats: rounds that count; one more warms up.
        gradient_checkpointing: of the packed variants, as in training.
    """

    num_negatives: Sequence[int]
    variants: Sequence[str] = VARIANTS
    repeats: int = 3
    gradient_checkpointing: Recompute = "auto"


@dataclass(frozen=True)
class PolicyCost:
    """Cost of one variant with one number of negatives.

    Attributes:
        variant: what was measured.
        num_negatives: n, per user.
        num_tokens: distinct tokens of the batch.
        measurement: forward and backward.
        relative_macs: multiply-adds relative to `sft`.
        relative_time: seconds relative to `sft`.
        speedup: seconds of `naive` over this variant's; None where naive was not run.
        logp_difference: of the packed variant, the largest relative difference of a response's
            log-prob from naive's; None where naive was not run.
    """

    variant: str
    num_negatives: int
    num_tokens: int
    measurement: Measurement
    relative_macs: float
    relative_time: float
    speedup: float | None
    logp_difference: float | None

    def row(self) -> dict[str, object]:
        """Plain values for a table."""
        peak, difference = self.measurement.peak_bytes, self.logp_difference
        return {
            "negatives": self.num_negatives,
            "variant": self.variant,
            "seconds": round(self.measurement.best, 4),
            "median seconds": round(self.measurement.median, 4),
            "tokens/s": round(self.num_tokens / self.measurement.best),
            "time / SFT time": round(self.relative_time, 2),
            "MACs / SFT MACs": round(self.relative_macs, 2),
            "time ratio / MAC ratio": round(self.relative_time / self.relative_macs, 2),
            "naive time / time": None if self.speedup is None else round(self.speedup, 1),
            "peak memory added (MiB)": None if peak is None else round(peak / 2**20),
            "max relative log-prob difference": (
                None if difference is None else float(f"{difference:.1e}")
            ),
        }


@dataclass(frozen=True)
class _Bench:
    """A model on its device and the batches of each number of negatives."""

    model: Any
    policy: PackedPolicy
    users: EncodedUsers
    pad_token_id: int
    packs: Mapping[int, PackedResponses]

    def rows(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of the variants that repeat the prompt."""
        device = self.packs[n].tokens.device
        return repeated_rows(first_negatives(self.users, n), self.pad_token_id, device)

    def forward(self, variant: str, n: int) -> Callable[[], Tensor]:
        """The variant's forward pass, its inputs already made."""
        if variant in ("packed", "packed_plain", "sft", "sft_plain"):
            return lambda: self.policy(self.packs[n])
        if variant == "two_passes":
            return lambda: self._two_passes(n)
        rows = self.rows(n)
        logps = naive_logps if variant == "naive" else response_logits_only_logps
        return lambda: logps(self.model, *rows)

    def _two_passes(self, n: int) -> Tensor:
        with torch.no_grad():
            self.policy(self.packs[n])
        logps: Tensor = self.policy(self.packs[n])
        return logps

    def relative_macs(self, n: int) -> float:
        """Multiply-adds relative to one response per user."""
        return multiply_adds(self.model, self.packs[n]) / multiply_adds(self.model, self.packs[0])

    @torch.no_grad()
    def logp_difference(self, n: int) -> float:
        """Largest relative difference of a response's log-prob, packed from naive."""
        naive = naive_logps(self.model, *self.rows(n))
        packed = self.policy(self.packs[n]).flatten()
        return float(((packed - naive) / naive).abs().max())


def bench_policy(
    model: Any,
    users: EncodedUsers,
    pad_token_id: int,
    settings: PolicySettings,
    progress: Progress = no_progress,
) -> list[PolicyCost]:
    """Measure all variants, interleaved; the fastest repetition counts.

    Args:
        model: PEFT-wrapped decoder with a trainable adapter, on its device.
        users: prompts, and responses with the target's first, for at least the largest number of
            negatives.
        pad_token_id: fills rows of the variants that repeat the prompt.
        settings: what to measure.
        progress: reports calls that are made.
    """
    model.train()
    if not torch.cuda.is_available():
        use_fused_lora(model)
        use_fused_norms(model)
    device = next(model.parameters()).device
    bench = _Bench(
        model,
        PackedPolicy(model, recompute=settings.gradient_checkpointing),
        users,
        pad_token_id,
        {
            n: _pack(first_negatives(users, n), pad_token_id, device)
            for n in (0, *settings.num_negatives)
        },
    )
    pairs = [(name, n) for n in settings.num_negatives for name in settings.variants]
    baselines = [_SFT, _SFT_PLAIN] if "packed_plain" in settings.variants else [_SFT]
    cases = dict.fromkeys([*baselines, *pairs])
    parameters = [p for p in model.parameters() if p.requires_grad]
    steps = {
        f"{variant}, {n}": training_step(
            parameters, bench.forward(variant, n), partial(plain_layers, variant in _PLAIN)
        )
        for variant, n in cases
    }
    num_done = 0

    def report(name: str, turn: int) -> None:
        nonlocal num_done
        progress(num_done, len(steps) * (settings.repeats + 1), f"{name} negatives, round {turn}")
        num_done += 1

    measured = measure_in_turn(steps, device, settings.repeats, report)
    return _costs(bench, dict(zip(cases, measured.values(), strict=True)))


def _costs(bench: _Bench, measurements: Mapping[tuple[str, int], Measurement]) -> list[PolicyCost]:
    sft = measurements[_SFT]
    costs = []
    for (variant, n), measurement in measurements.items():
        naive = measurements.get(("naive", n))
        compared = variant == "packed" and naive is not None
        costs.append(
            PolicyCost(
                variant=variant,
                num_negatives=n,
                num_tokens=bench.packs[n].num_tokens,
                measurement=measurement,
                relative_macs=bench.relative_macs(n),
                relative_time=measurement.best / sft.best,
                speedup=naive.best / measurement.best if naive is not None else None,
                logp_difference=bench.logp_difference(n) if compared else None,
            )
        )
    return costs


def first_negatives(users: EncodedUsers, n: int) -> EncodedUsers:
    """The same users with the target and the first n negatives."""
    return replace(users, responses=[responses[: n + 1] for responses in users.responses])


def multiply_adds(model: Any, packed: PackedResponses) -> int:
    """Multiply-adds of a forward pass without attention.

    Args:
        model: decoder, plain or PEFT-wrapped; LoRA's own layers are not counted.
        packed: its tokens go through the linear layers, its predicting positions through the head.
    """
    causal_lm = causal_lm_of(model)
    body = sum(
        module.weight.numel()
        for name, module in causal_lm.get_decoder().named_modules()
        if isinstance(module, nn.Linear) and "lora" not in name
    )
    head = causal_lm.get_output_embeddings().weight.numel()
    return int(packed.num_tokens * body + len(packed.sources) * head)


def _pack(users: EncodedUsers, pad_token_id: int, device: torch.device) -> PackedResponses:
    packed = pack_responses(
        users.prompts, users.responses, pad_token_id, multiple_of=row_multiple()
    )
    return packed.to(device)


def training_step(
    parameters: Sequence[nn.Parameter],
    forward: Callable[[], Tensor],
    layers: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Callable[[], None]:
    """Forward and backward, as a call to measure.

    Args:
        parameters: what is trained; their gradients are dropped before each call.
        forward: log-probs of any shape.
        layers: in which way the layers are computed, backward too, which may compute them again.
    """

    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        with layers():
            torch.autograd.backward(-forward().mean())

    return step


class TokenUsers(Protocol):
    """Token ids of users."""

    @property
    def prompts(self) -> Sequence[list[int]]:
        """One list per user."""

    @property
    def responses(self) -> Sequence[Sequence[list[int]]]:
        """Per user, one list per response."""


def repeated_rows(
    users: TokenUsers, pad_token_id: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows as the public trainers make them, one per response.

    Returns:
        Tokens, attention mask and mask of response tokens, each [rows, longest].
    """
    rows = [
        (prompt + response, len(prompt))
        for prompt, responses in zip(users.prompts, users.responses, strict=True)
        for response in responses
    ]
    longest = max(len(tokens) for tokens, _ in rows)
    tokens = torch.full((len(rows), longest), pad_token_id)
    attention_mask, is_response = (
        torch.zeros_like(tokens),
        torch.zeros_like(tokens, dtype=torch.bool),
    )
    for index, (row, prompt_length) in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row)
        attention_mask[index, : len(row)] = 1
        is_response[index, prompt_length : len(row)] = True
    return tokens.to(device), attention_mask.to(device), is_response.to(device)


def naive_logps(model: Any, tokens: Tensor, attention_mask: Tensor, is_response: Tensor) -> Tensor:
    """Summed response log-probs [rows], with logits and log-softmax at every position.

    Args:
        model: decoder, plain or PEFT-wrapped.
        tokens: [rows, longest].
        attention_mask: [rows, longest].
        is_response: [rows, longest].
    """
    logits = model(input_ids=tokens, attention_mask=attention_mask, use_cache=False).logits
    logps = logits[:, :-1].float().log_softmax(dim=-1)
    token_logps: Tensor = logps.gather(2, tokens[:, 1:, None])[:, :, 0]
    return (token_logps * is_response[:, 1:]).sum(dim=1)


def response_logits_only_logps(
    model: Any, tokens: Tensor, attention_mask: Tensor, is_response: Tensor
) -> Tensor:
    """Summed response log-probs [rows], with logits only where a response token is predicted.

    Args:
        model: decoder, plain or PEFT-wrapped.
        tokens: [rows, longest].
        attention_mask: [rows, longest].
        is_response: [rows, longest].
    """
    causal_lm = causal_lm_of(model)
    hidden = causal_lm.get_decoder()(
        input_ids=tokens, attention_mask=attention_mask, use_cache=False
    ).last_hidden_state[:, :-1]
    predicts = is_response[:, 1:]
    logits = causal_lm.get_output_embeddings()(hidden[predicts]).float()
    targets = tokens[:, 1:][predicts]
    token_logps = logits.log_softmax(dim=-1).gather(1, targets[:, None])[:, 0]
    row_of = predicts.nonzero()[:, 0]
    return torch.zeros(len(tokens), device=tokens.device).index_add(0, row_of, token_logps)
