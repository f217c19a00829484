"""The training steps of two public trainers, S-DPO's and TRL's, as `peer_code.py` gets them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peer_steps import ReferenceMode, Texts, clear_gradients
from torch import Tensor


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
        self._model.eval()  # as recomputation, which wants gradients, is off then
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
        self._rows = list(trainer.get_train_dataloader().dataset)

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


def make_trl(classes: tuple[Any, Any], settings: PeerSettings, texts: Texts) -> list[TrlStep]:
    """Steps of TRL's `DPOTrainer` with its defaults, and with a precomputed reference.

    Args:
        classes: result of `peer_code.trl_trainer`.
        settings: of the run.
        texts: of the users.
    """
    datasets: Any = importlib.import_module("datasets")  # in the cache, by `peer_code`
    datasets.disable_progress_bars()
    make_config, make_trainer = classes
    modes: tuple[ReferenceMode, ...] = ("each step", "precomputed")
    steps = []
    for mode in modes:
        trainer = make_trainer(
            model=settings.load(),
            args=make_config(
                **settings.arguments(len(texts.prompts)),
                beta=settings.beta,
                precompute_ref_log_probs=mode == "precomputed",
            ),
            train_dataset=datasets.Dataset.from_list(texts.pairs()),
            processing_class=settings.tokenizer(),
        )
        steps.append(TrlStep(trainer, mode))
    return steps


def _unpadded(ids: Tensor, mask: Tensor) -> list[tuple[int, ...]]:
    return [tuple(row[keep.bool()].tolist()) for row, keep in zip(ids, mask, strict=True)]
