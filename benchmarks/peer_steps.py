"""The training step of raypo and of two public trainers, on the same model and texts.

A step makes a batch from texts or tokens, as the trainer does at each step, computes reference
log-probs where the trainer does so at each step, then log-probs, loss and gradients of the adapter.
It takes no optimiser step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
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
from raypo.training.reference import FrozenAdapter, without_dropout

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
    """A trainer's step.

    Attributes:
        trainer: whose it is.
        num_negatives: n, per user.
        reference: when reference log-probs are computed.
        models: every model that the trainer holds, the trained one first.
    """

    trainer: str
    num_negatives: int
    reference: ReferenceMode
    models: Sequence[nn.Module]

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


@dataclass
class RaypoStep:
    """raypo's step in one process with one micro-batch, by `raypo.training`'s own parts.

    Attributes:
        model: PEFT-wrapped, with the reference's adapter when this is constructed.
        texts: of the users.
        users: the same as tokens; responses are encoded once, as in training.
        tokenizer: encodes prompts at each step, as in training.
        num_negatives: n.
        reference: `precomputed` is raypo's default.
        beta: of the loss.
    """

    model: nn.Module
    texts: Texts
    users: EncodedUsers
    tokenizer: Any
    num_negatives: int
    reference: ReferenceMode
    beta: float
    trainer: str = field(init=False, default="raypo")

    def __post_init__(self) -> None:
        """Freeze the reference, and score it if it is precomputed."""
        policy = PackedPolicy(self.model, recompute="auto")
        self._engine = TorchEngine(policy, StepConfig(OptimiserConfig(), len(self.texts.prompts)))
        self._frozen = FrozenAdapter(self._engine)
        name = "dpo" if self.num_negatives == 1 else "s-dpo"
        self._objective = build_objective(name, beta=self.beta)
        self.models = [self.model]
        with torch.no_grad(), without_dropout(self._engine):
            self._precomputed = self._frozen(self._batch())

    def __call__(self) -> Tensor:
        """The loss; gradients are left in the adapter's weights."""
        clear_gradients(self.model)
        batch = self._batch()
        chosen, rejected = (
            self._frozen(batch) if self.reference == "each step" else self._precomputed
        )
        logps = self._engine.logps(batch.packed)
        counted = logps.detach().requires_grad_()
        out = self._objective(
            PreferenceBatch(
                chosen_logps=counted[:, 0],
                rejected_logps=counted[:, 1:],
                reference_chosen_logps=chosen,
                reference_rejected_logps=rejected,
            )
        )
        (gradient,) = torch.autograd.grad(out.loss, counted)
        self._engine.backward(logps, gradient, True)
        return out.loss.detach()

    @torch.no_grad()
    def logps(self) -> Tensor:
        """Response log-probs [users, 1 + n] under the policy."""
        return self._engine.logps(self._batch().packed).float().cpu()

    def sequences(self) -> set[tuple[int, ...]]:
        """Tokens of prompt and response."""
        return {
            (*prompt, *response)
            for prompt, responses in zip(self._prompts(), self.users.responses, strict=True)
            for response in responses[: self.num_negatives + 1]
        }

    def _prompts(self) -> list[list[int]]:
        return [list(self.tokenizer(text).input_ids) for text in self.texts.prompts]

    def _batch(self) -> Batch:
        packed = pack_responses(
            self._prompts(),
            [responses[: self.num_negatives + 1] for responses in self.users.responses],
            self.tokenizer.pad_token_id,
            multiple_of=row_multiple(),
        )
        nothing = torch.empty(0)  # item ids, which these objectives do not read
        return Batch(packed.to(self._engine.device), nothing, nothing, nothing, nothing, ())


@dataclass(frozen=True)
class PeerSettings:
    """How the public trainers run.

    Attributes:
        model_folder: base model and tokenizer.
        reference_adapter: folder of the adapter that training starts from.
        dtype: of the base model; bfloat16 adds autocast, as both trainers' own scripts have it.
        beta: of the loss.
        recompute: gradient checkpointing, which both trainers' own scripts turn on.
        output: folder for what a trainer writes.
    """

    model_folder: Path
    reference_adapter: Path
    dtype: torch.dtype
    beta: float
    recompute: bool
    output: Path

    def load(self) -> Any:
        """The base model with the adapter, trainable."""
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(self.model_folder, dtype=self.dtype)
        base.config.use_cache = False
        adapter = str(self.reference_adapter)
        model = PeftModel.from_pretrained(base, adapter, is_trainable=True)
        return model.to("cuda" if torch.cuda.is_available() else "cpu")

    def tokenizer(self) -> Any:
        """A tokenizer of the trainer's own."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.model_folder)

    def arguments(self, num_users: int) -> dict[str, Any]:
        """Arguments that both trainers take."""
        return {
            "output_dir": str(self.output),
            "per_device_train_batch_size": num_users,
            "gradient_checkpointing": self.recompute,
            "bf16": self.dtype == torch.bfloat16,
            "use_cpu": not torch.cuda.is_available(),
            "report_to": [],
        }


class _PeerStep:
    """A step of a trainer derived from transformers' `Trainer`."""

    trainer: str

    def __init__(self, trainer: Any, recompute: Mapping[str, Any] | None) -> None:
        """Prepare the model as `Trainer.train` does before its first step."""
        self._trainer = trainer
        if trainer.args.gradient_checkpointing:
            options = None if recompute is None else dict(recompute)
            trainer.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
        trainer.current_gradient_accumulation_steps = 1
        self._model = trainer.accelerator.prepare_model(trainer.model)

    def _step(self, rows: Sequence[Mapping[str, Any]]) -> Tensor:
        clear_gradients(self._trainer.model)
        inputs = self._trainer.data_collator(rows)
        loss: Tensor = self._trainer.training_step(self._model, inputs)
        return loss.detach()


class SdpoStep(_PeerStep):
    """S-DPO's step: a row per response, logits everywhere, the reference model at each step."""

    trainer = "S-DPO"
    reference: ReferenceMode = "each step"

    def __init__(self, trainer: Any, rows: Sequence[Mapping[str, str]], num_negatives: int) -> None:
        """Hold a trainer that other numbers of negatives share."""
        super().__init__(trainer, {"use_reentrant": True})  # as its script has it
        self.num_negatives = num_negatives
        self.models = [trainer.model, trainer.ref_model]
        self._rows = rows

    def __call__(self) -> Tensor:
        """The loss; gradients are left in the adapter's weights."""
        return self._step(self._rows)

    @torch.no_grad()
    def logps(self) -> Tensor:
        """Response log-probs [users, 1 + n] under the policy, by its `concatenated_forward`."""
        chosen, rejected, _, _ = self._trainer.concatenated_forward(self._model, self._inputs())
        return torch.stack([chosen, *rejected.values()], dim=1).float().cpu()

    def sequences(self) -> set[tuple[int, ...]]:
        """Tokens of prompt and response."""
        inputs = self._inputs()
        names = ("chosen", *(f"rejected{i}" for i in range(1, self.num_negatives + 1)))
        rows = ((inputs[f"{name}_input_ids"], inputs[f"{name}_attention_mask"]) for name in names)
        return {tokens for ids, mask in rows for tokens in _unpadded(ids, mask)}

    def _inputs(self) -> Any:
        return self._trainer._prepare_inputs(self._trainer.data_collator(self._rows))


def make_sdpo(
    make: Callable[..., Any], settings: PeerSettings, texts: Texts, negatives: Sequence[int]
) -> list[SdpoStep]:
    """Steps of S-DPO's trainer, constructed as its `softmax_dpo.py` does.

    Args:
        make: result of `peer_code.sdpo_trainer`.
        settings: of the run.
        texts: of the users.
        negatives: n of each step.
    """
    from transformers import TrainingArguments

    model, reference = settings.load(), settings.load()
    reference.requires_grad_(False).eval()
    model.enable_input_require_grads()  # without which reentrant checkpointing has no gradients
    arguments = TrainingArguments(
        **settings.arguments(len(texts.prompts)), remove_unused_columns=False
    )
    trainer = make(
        model,
        reference,
        args=arguments,
        beta=settings.beta,
        tokenizer=settings.tokenizer(),
        max_prompt_length=512,
        max_length=512,
    )
    return [SdpoStep(trainer, texts.rows(n), n) for n in negatives]


class TrlStep(_PeerStep):
    """TRL's step: a row per response, logits only of responses, one negative at most."""

    trainer = "TRL"
    num_negatives = 1

    def __init__(self, trainer: Any, reference: ReferenceMode) -> None:
        """Hold a trainer; its data set is tokenised already."""
        super().__init__(trainer, None)
        self.reference = reference
        self.models = [trainer.model]
        # As its data loader does.
        trainer._set_signature_columns_if_needed()
        kept = [c for c in trainer._signature_columns if c in trainer.train_dataset.column_names]
        self._rows = list(trainer.train_dataset.select_columns(kept))

    def __call__(self) -> Tensor:
        """The loss; gradients are left in the adapter's weights."""
        return self._step(self._rows)

    @torch.no_grad()
    def logps(self) -> Tensor:
        """Response log-probs [users, 2] under the policy, from what it logs of a user alone."""
        logged = self._trainer._metrics["train"]
        values = []
        for row in self._rows:
            inputs = self._trainer._prepare_inputs(self._trainer.data_collator([row]))
            self._trainer.compute_loss(self._model, inputs)
            values.append([logged[f"logps/{name}"][-1] for name in ("chosen", "rejected")])
        return torch.tensor(values)

    def sequences(self) -> set[tuple[int, ...]]:
        """Tokens of prompt and response."""
        inputs = self._trainer.data_collator(self._rows)
        return set(_unpadded(inputs["input_ids"], inputs["attention_mask"]))


def make_trl(
    classes: tuple[Any, Any], settings: PeerSettings, texts: Texts, reference: ReferenceMode
) -> TrlStep:
    """A step of TRL's `DPOTrainer` with its defaults.

    Args:
        classes: result of `peer_code.trl_trainer`.
        settings: of the run.
        texts: of the users.
        reference: at each step is its default.
    """
    from datasets import Dataset

    make_config, make_trainer = classes
    config = make_config(
        **settings.arguments(len(texts.prompts)),
        beta=settings.beta,
        precompute_ref_log_probs=reference == "precomputed",
    )
    trainer = make_trainer(
        model=settings.load(),
        args=config,
        train_dataset=Dataset.from_list(texts.pairs()),
        processing_class=settings.tokenizer(),
    )
    return TrlStep(trainer, reference)


def _unpadded(ids: Tensor, mask: Tensor) -> list[tuple[int, ...]]:
    return [tuple(row[keep.bool()].tolist()) for row, keep in zip(ids, mask, strict=True)]
