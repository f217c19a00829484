"""What a training step of `peers.py` is, and raypo's.

A step makes a batch from texts or tokens, as the trainer does at each step, computes reference
log-probs where the trainer does so at each step, then log-probs, loss and gradients of the adapter.
It takes no optimiser step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from raypo.config import OptimiserConfig
from raypo.data.tokenisation import EncodedUsers
from raypo.objectives import PreferenceBatch, build_objective
from raypo.policy import pack_responses
from raypo.policy.attention import row_multiple
from raypo.policy.logps import PackedPolicy
from raypo.training.batches import Batch
from raypo.training.engine import StepConfig, TorchEngine
from raypo.training.reference import FrozenAdapter

ReferenceMode = Literal["each step", "precomputed"]


@dataclass(frozen=True)
class Texts:
    """Users as text, which every trainer turns into tokens by itself.

    Attributes:
        prompts: one per user.
        responses: per user, one per response, the target's first; without end of sequence.
    """

    prompts: Sequence[str]
    responses: Sequence[Sequence[str]]

    @classmethod
    def of(cls, users: EncodedUsers, tokenizer: Any) -> Texts:
        """The texts of encoded users."""

        def text(tokens: Sequence[int]) -> str:
            return str(tokenizer.decode(tokens, clean_up_tokenization_spaces=False))

        return cls(
            [text(prompt) for prompt in users.prompts],
            [[text(response[:-1]) for response in each] for each in users.responses],
        )

    def rows(self, num_negatives: int) -> list[dict[str, str]]:
        """Rows of S-DPO's data set: `prompt`, `chosen`, `rejected1`, and so on."""
        return [
            {"prompt": prompt, "chosen": responses[0]}
            | {f"rejected{i}": responses[i] for i in range(1, num_negatives + 1)}
            for prompt, responses in zip(self.prompts, self.responses, strict=True)
        ]

    def pairs(self) -> list[dict[str, str]]:
        """Rows of TRL's data set: `prompt`, `chosen`, `rejected`."""
        return [
            {"prompt": prompt, "chosen": responses[0], "rejected": responses[1]}
            for prompt, responses in zip(self.prompts, self.responses, strict=True)
        ]


class Step(Protocol):
    """A trainer's step."""

    @property
    def trainer(self) -> str:
        """Whose it is."""

    @property
    def num_negatives(self) -> int:
        """The n of each user."""

    @property
    def reference(self) -> ReferenceMode:
        """When reference log-probs are computed."""

    @property
    def models(self) -> Sequence[nn.Module]:
        """Every model that the trainer holds, the trained one first."""

    def __call__(self) -> Tensor:
        """The loss, the mean over users; gradients are left in the adapter's weights."""

    def logps(self) -> Tensor:
        """Response log-probs [users, 1 + n] under the policy, the target's first."""

    def sequences(self) -> set[tuple[int, ...]]:
        """Tokens of prompt and response, of each response, without padding."""


def adapter_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained adapter's weights by name; a frozen second adapter's are left out."""
    return {name: p for name, p in model.named_parameters() if ".default." in name}


def set_adapter(step: Step, weights: Mapping[str, Tensor]) -> None:
    """Replace the trained adapter's weights, as training would; the reference keeps its own."""
    for name, parameter in adapter_weights(step.models[0]).items():
        parameter.data.copy_(weights[name])


def clear_gradients(model: nn.Module) -> None:
    """Forget the gradients of the last step."""
    for parameter in model.parameters():
        parameter.grad = None


@dataclass(frozen=True)
class RaypoStep:
    """raypo's step in one process with one micro-batch, by `raypo.training`'s own parts.

    Attributes:
        engine: with the policy, which has the reference's adapter when `make_raypo` is called.
        frozen: the reference.
        texts: of the users.
        users: the same as tokens; responses are encoded once, as in training.
        tokenizer: encodes prompts at each step, as in training.
        num_negatives: n.
        objective: its loss.
        precomputed: reference log-probs [users] and [users, n]; None computes them at each step.
    """

    engine: TorchEngine
    frozen: FrozenAdapter
    texts: Texts
    users: EncodedUsers
    tokenizer: Any
    num_negatives: int
    objective: Any
    precomputed: tuple[Tensor, Tensor] | None = None
    trainer: str = field(init=False, default="raypo")

    @property
    def reference(self) -> ReferenceMode:
        """When reference log-probs are computed."""
        return "each step" if self.precomputed is None else "precomputed"

    @property
    def models(self) -> list[nn.Module]:
        """The one model."""
        return [self.engine.policy.model]

    def __call__(self) -> Tensor:
        """The loss; gradients are left in the adapter's weights."""
        clear_gradients(self.models[0])
        batch = self.batch()
        chosen, rejected = self.precomputed or self.frozen(batch)
        logps = self.engine.logps(batch.packed)
        counted = logps.detach().requires_grad_()
        out = self.objective(
            PreferenceBatch(
                chosen_logps=counted[:, 0],
                rejected_logps=counted[:, 1:],
                reference_chosen_logps=chosen,
                reference_rejected_logps=rejected,
            )
        )
        (gradient,) = torch.autograd.grad(out.loss, counted)
        self.engine.backward(logps, gradient, True)
        return torch.as_tensor(out.loss).detach()

    @torch.no_grad()
    def logps(self) -> Tensor:
        """Response log-probs [users, 1 + n] under the policy."""
        return self.engine.logps(self.batch().packed).float().cpu()

    def sequences(self) -> set[tuple[int, ...]]:
        """Tokens of prompt and response."""
        return {
            (*prompt, *response)
            for prompt, responses in zip(self._prompts(), self.users.responses, strict=True)
            for response in responses[: self.num_negatives + 1]
        }

    def batch(self) -> Batch:
        """The packed rows, made anew."""
        packed = pack_responses(
            self._prompts(),
            [responses[: self.num_negatives + 1] for responses in self.users.responses],
            self.tokenizer.pad_token_id,
            multiple_of=row_multiple(),
        )
        nothing = torch.empty(0)  # item ids, which these objectives do not read
        return Batch(packed.to(self.engine.device), nothing, nothing, nothing, nothing, ())

    def _prompts(self) -> list[list[int]]:
        return [list(self.tokenizer(text).input_ids) for text in self.texts.prompts]


def make_raypo(
    model: nn.Module, users: EncodedUsers, tokenizer: Any, negatives: Sequence[int], beta: float
) -> list[RaypoStep]:
    """Steps with a precomputed reference, raypo's default, and with a pass at each step.

    Args:
        model: PEFT-wrapped, with the reference's adapter.
        users: prompts and responses.
        tokenizer: of the model.
        negatives: n of the steps; DPO for one, S-DPO for more.
        beta: of the loss.
    """
    texts = Texts.of(users, tokenizer)
    engine = TorchEngine(PackedPolicy(model), StepConfig(OptimiserConfig(), len(users.prompts)))
    model.train()
    frozen = FrozenAdapter(engine)
    steps = []
    for n in negatives:
        objective = build_objective("dpo" if n == 1 else "s-dpo", beta=beta)
        step = RaypoStep(engine, frozen, texts, users, tokenizer, n, objective)
        steps += [step, replace(step, precomputed=frozen(step.batch()))]
    return steps
