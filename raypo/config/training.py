"""Fine-tuning and alignment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from raypo.config.base import BaseConfig, Fraction, NonNegativeInt, PositiveFloat, PositiveInt
from raypo.config.objective import ObjectiveConfig
from raypo.config.paths import LocalPath


class LoraConfig(BaseConfig):
    """Low-rank adapters (arXiv 2106.09685) on all linear layers by default."""

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    dropout: Fraction = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"


class PolicyConfig(BaseConfig):
    """Which language model, in which precision, with which adapter."""

    model: str = Field("smollm2-135m-instruct", description="folder, or a built-in model's name")
    adapter: LocalPath | None = Field(None, description="PEFT adapter folder to start from")
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    lora: LoraConfig = LoraConfig()
    prompt: LocalPath | None = Field(None, description="template file; None is the built-in one")
    max_prompt_tokens: PositiveInt | None = Field(
        None,
        description="longer prompts lose their oldest history items; None is the model's context "
        "less the longest title",
    )
    gradient_checkpointing: bool | Literal["auto"] = Field(
        "auto",
        description="layers computed again in backward: all (least memory, a third more time), "
        "none, or `auto`, so many that other responses take little more memory than one",
    )
    quantisation: Literal["4bit"] | None = Field(
        None, description="of the base weights while training; needs a GPU and bitsandbytes"
    )


class OptimiserConfig(BaseConfig):
    """AdamW with linear warm-up and cosine decay to zero."""

    renamed: ClassVar[Mapping[str, str]] = {
        "warmup_share": "warmup_ratio",
        "gradient_clip": "max_grad_norm",
    }

    learning_rate: PositiveFloat = 2e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_ratio: Fraction = Field(0.05, description="share of the steps spent warming up")
    max_grad_norm: PositiveFloat = 1.0


class WorkerRange(BaseConfig):
    """Elastic training: as many workers as the cluster has room for, within these."""

    min: PositiveInt
    max: PositiveInt

    @model_validator(mode="after")
    def _in_order(self) -> WorkerRange:
        if self.min > self.max:
            raise ValueError(f"cluster.workers: min {self.min} is more than max {self.max}")
        return self


def _kind_of_workers(value: Any) -> str:
    return "<range>" if isinstance(value, dict | WorkerRange) else "<number>"


# Told apart by what is given, so that a mistake is explained for the kind that was meant.
Workers = Annotated[
    Annotated[PositiveInt, Tag("<number>")] | Annotated[WorkerRange, Tag("<range>")],
    Discriminator(_kind_of_workers),
]


class ClusterConfig(BaseConfig):
    """How the training loop is spread: Ray Train workers and the DeepSpeed engine."""

    workers: Workers = Field(
        2,
        description="or {min, max}: the run goes on with fewer when a node leaves and with more "
        "when one comes, with the same users in every step",
    )
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    engine: Literal["deepspeed", "torch"] = "deepspeed"
    zero_stage: Literal[0, 2, 3] = 0
    max_failures: NonNegativeInt = Field(1, description="worker failures survived by resuming")
    launcher: Literal["ray", "local"] = Field(
        "ray", description="`local` runs one worker in this process, without Ray"
    )

    @property
    def most_workers(self) -> int:
        """Workers where the cluster has room for all of them; these set the batch."""
        return self.workers.max if isinstance(self.workers, WorkerRange) else self.workers


class ValidationConfig(BaseConfig):
    """Validation while training: HitRatio@1 by likelihood on some validation rows."""

    renamed: ClassVar[Mapping[str, str]] = {"every": "eval_steps", "rows": "max_rows"}

    eval_steps: PositiveInt = Field(20, description="optimiser steps between validations")
    max_rows: PositiveInt = 64


class CommonTrainingConfig(BaseConfig):
    """What fine-tuning and alignment share."""

    renamed: ClassVar[Mapping[str, str]] = {
        "micro_batch": "micro_batch_size",
        "accumulation": "gradient_accumulation_steps",
        "rows": "max_rows",
    }

    data: LocalPath = Field(description="prepared data set")
    output: LocalPath = Field(description="run folder")
    policy: PolicyConfig = PolicyConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    cluster: ClusterConfig = ClusterConfig()
    validation: ValidationConfig = ValidationConfig()
    micro_batch_size: PositiveInt = Field(4, description="users per worker and forward pass")
    token_budget: PositiveInt | None = Field(
        None, description="tokens of a packed row; None packs a micro-batch into one row"
    )
    gradient_accumulation_steps: PositiveInt = Field(
        1, description="micro-batches per optimiser step"
    )
    epochs: PositiveInt = 1
    max_rows: PositiveInt | None = Field(None, description="training rows drawn; None takes all")
    mlflow: str | None = Field(
        None, description="tracking URI of MLflow, beside the run's TensorBoard files"
    )
    seed: NonNegativeInt = 0

    @property
    def users_per_step(self) -> int:
        """Users in one optimiser step over all workers."""
        return self.micro_batch_size * self.gradient_accumulation_steps * self.cluster.most_workers


class SftConfig(CommonTrainingConfig):
    """`raypo sft`: token-mean negative log-likelihood of the target's title."""


class AlignConfig(CommonTrainingConfig):
    """`raypo align`: preference alignment of the SFT policy."""

    objective: ObjectiveConfig = ObjectiveConfig()
    negatives: PositiveInt = Field(3, description="sampled negatives per user (n)")
    reference: Literal["precomputed", "on-the-fly"] = Field(
        "precomputed",
        description="reference log-probs: one pass before training, kept by content; or a frozen "
        "copy of the adapter, one more forward pass a step",
    )
    recommender: LocalPath | None = Field(
        None, description="run folder of the sequential recommender"
    )

    @model_validator(mode="after")
    def _needs_sft_adapter(self) -> AlignConfig:
        if self.policy.adapter is None:
            raise ValueError(
                "policy.adapter: alignment starts from an SFT adapter; give its folder"
            )
        return self
