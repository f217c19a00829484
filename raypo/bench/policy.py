"""What many negatives cost: the packed policy beside the ways of the public trainers.

Contenders, each forward and backward through the adapter, on the same users and responses:

- `naive`: a row per response, prompt repeated, logits and log-softmax over whole sequences;
- `tight`: the same rows, logits at response positions alone;
- `packed`: each distinct token once (`raypo.policy`);
- `sft`: the packed code with one response, which the floor is relative to.

The floor counts multiply-adds: every distinct token once through the body's linear layers, every
place that predicts once through the LM head. It leaves attention out, as it leaves out everything
that a perfect implementation could hide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raypo.bench.measure import Measured, measure_in_turn
from raypo.io.progress import Progress, no_progress
from raypo.policy import pack_responses
from raypo.policy.activation_checkpointing import Recompute
from raypo.policy.attention import row_multiple
from raypo.policy.logps import PackedPolicy, causal_lm_of
from raypo.policy.packing import PackedResponses

WAYS = ("naive", "tight", "packed")


@dataclass(frozen=True)
class Users:
    """Token ids: prompts [users], responses [users][negatives + 1], the target's first."""

    prompts: list[list[int]]
    responses: list[list[list[int]]]

    def with_negatives(self, n: int) -> Users:
        """The same users with the target and the first n negatives."""
        return Users(self.prompts, [answers[: n + 1] for answers in self.responses])


@dataclass(frozen=True)
class PolicyCost:
    """One row of the table.

    Attributes:
        way: contender. negatives: n. tokens: distinct tokens of the batch.
        floor: multiply-adds relative to `sft`. relative: seconds relative to `sft`.
        speedup: seconds of `naive` over this one's; None where naive was not run.
        apart: of the packed way, the largest relative difference of a response's log-prob from
            naive's; None likewise.
    """

    way: str
    negatives: int
    tokens: int
    measured: Measured
    floor: float
    relative: float
    speedup: float | None
    apart: float | None

    def row(self) -> dict[str, object]:
        """Plain values for a table."""
        peak = self.measured.peak_bytes
        return {
            "n": self.negatives,
            "way": self.way,
            "seconds": round(self.measured.best, 4),
            "median": round(self.measured.median, 4),
            "tokens/s": round(self.tokens / self.measured.best),
            "x sft": round(self.relative, 2),
            "floor": round(self.floor, 2),
            "of floor": round(self.relative / self.floor, 2),
            "faster than naive": None if self.speedup is None else round(self.speedup, 1),
            "peak MiB": None if peak is None else round(peak / 2**20),
            "apart from naive": None if self.apart is None else float(f"{self.apart:.1e}"),
        }


def bench_policy(
    model: Any,
    users: Users,
    pad_token_id: int,
    negatives: Sequence[int],
    ways: Sequence[str] = WAYS,
    repeats: int = 3,
    recompute: Recompute = "auto",
    progress: Progress = no_progress,
) -> list[PolicyCost]:
    """Measure all contenders in turn; the fastest repetition counts.

    Args:
        model: PEFT-wrapped decoder with a trainable adapter, on its device.
        users: with at least the most negatives asked for.
        pad_token_id: fills rows of the naive ways.
        negatives: n's to measure.
        ways: contenders beside `sft`.
        repeats: rounds that count; one more warms up.
        recompute: of the packed ways, as in training.
        progress: told of calls made.
    """
    model.train()
    device = next(model.parameters()).device
    policy = PackedPolicy(model, recompute=recompute)
    parameters = [p for p in model.parameters() if p.requires_grad]
    steps: dict[str, Callable[[], object]] = {}
    packs = {n: _pack(users.with_negatives(n), pad_token_id, device) for n in (0, *negatives)}
    steps["sft 0"] = _step(parameters, lambda: policy(packs[0]))
    for n in negatives:
        for way in ways:
            steps[f"{way} {n}"] = _step(
                parameters, _forward(way, model, policy, users, n, pad_token_id, packs[n])
            )
    done = [0]

    def told(name: str, turn: int) -> None:
        progress(done[0], len(steps) * (repeats + 1), f"{name} negatives, round {turn}")
        done[0] += 1

    measured = measure_in_turn(steps, device, repeats, told)
    base = measured["sft 0"].best
    costs = []
    for name, result in measured.items():
        way, n = name.split()[0], int(name.split()[1])
        naive = measured.get(f"naive {n}")
        costs.append(
            PolicyCost(
                way=way,
                negatives=n,
                tokens=packs[n].num_tokens,
                measured=result,
                floor=multiply_adds(model, packs[n]) / multiply_adds(model, packs[0]),
                relative=result.best / base,
                speedup=naive.best / result.best if naive is not None else None,
                apart=_apart(model, policy, users.with_negatives(n), pad_token_id, packs[n])
                if way == "packed" and naive is not None
                else None,
            )
        )
    return costs


@torch.no_grad()
def _apart(
    model: Any, policy: PackedPolicy, users: Users, pad_token_id: int, packed: PackedResponses
) -> float:
    naive = naive_logps(model, *repeated_rows(users, pad_token_id, packed.tokens.device))
    ours = policy(packed).flatten()
    return float(((ours - naive) / naive).abs().max())


def multiply_adds(model: Any, packed: PackedResponses) -> int:
    """Of a forward pass without attention: tokens through the body, places through the head."""
    causal_lm = causal_lm_of(model)
    body = sum(
        module.weight.numel()
        for name, module in causal_lm.get_decoder().named_modules()
        if isinstance(module, nn.Linear) and "lora" not in name
    )
    head = causal_lm.get_output_embeddings().weight.numel()
    return int(packed.num_tokens * body + len(packed.sources) * head)


def _pack(users: Users, pad_token_id: int, device: torch.device) -> PackedResponses:
    packed = pack_responses(
        users.prompts, users.responses, pad_token_id, multiple_of=row_multiple()
    )
    return packed.to(device)


def _step(parameters: list[nn.Parameter], forward: Callable[[], Tensor]) -> Callable[[], None]:
    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        torch.autograd.backward(-forward().mean())

    return step


def _forward(
    way: str,
    model: Any,
    policy: PackedPolicy,
    users: Users,
    n: int,
    pad_token_id: int,
    packed: PackedResponses,
) -> Callable[[], Tensor]:
    if way == "packed":
        return lambda: policy(packed)
    rows = repeated_rows(users.with_negatives(n), pad_token_id, packed.tokens.device)
    if way == "naive":
        return lambda: naive_logps(model, *rows)
    return lambda: tight_logps(model, *rows)


def repeated_rows(
    users: Users, pad_token_id: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows as the public trainers make them, one per response.

    Returns:
        Tokens, attention mask and where responses are, each [rows, longest].
    """
    rows = [
        (prompt + answer, len(prompt))
        for prompt, answers in zip(users.prompts, users.responses, strict=True)
        for answer in answers
    ]
    longest = max(len(tokens) for tokens, _ in rows)
    tokens = torch.full((len(rows), longest), pad_token_id)
    attended, answered = torch.zeros_like(tokens), torch.zeros_like(tokens, dtype=torch.bool)
    for index, (row, prompt) in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row)
        attended[index, : len(row)] = 1
        answered[index, prompt : len(row)] = True
    return tokens.to(device), attended.to(device), answered.to(device)


def naive_logps(model: Any, tokens: Tensor, attended: Tensor, answered: Tensor) -> Tensor:
    """Summed response log-probs [rows], logits and log-softmax over everything."""
    logits = model(input_ids=tokens, attention_mask=attended, use_cache=False).logits
    logps = logits[:, :-1].float().log_softmax(dim=-1)
    token_logps: Tensor = logps.gather(2, tokens[:, 1:, None])[:, :, 0]
    return (token_logps * answered[:, 1:]).sum(dim=1)


def tight_logps(model: Any, tokens: Tensor, attended: Tensor, answered: Tensor) -> Tensor:
    """Summed response log-probs [rows], logits where a response token is predicted alone."""
    causal_lm = causal_lm_of(model)
    hidden = causal_lm.get_decoder()(
        input_ids=tokens, attention_mask=attended, use_cache=False
    ).last_hidden_state[:, :-1]
    predicts = answered[:, 1:]
    logits = causal_lm.get_output_embeddings()(hidden[predicts]).float()
    targets = tokens[:, 1:][predicts]
    token_logps = logits.log_softmax(dim=-1).gather(1, targets[:, None])[:, 0]
    row_of = predicts.nonzero()[:, 0]
    return torch.zeros(len(tokens), device=tokens.device).index_add(0, row_of, token_logps)
