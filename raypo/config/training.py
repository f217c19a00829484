"""Fine-tuning and alignment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from raypo.config.base import BaseConfig, Fraction, NonNegativeInt, PositiveFloat, PositiveInt
from raypo.config.negatives import NEGATIVE_SOURCES, NegativeOptions, NegativeSampling
from raypo.config.objective import ObjectiveConfig
from raypo.config.paths import LocalPath, StageFolders
from raypo.config.policy import PolicyConfig, PolicySettings


class OptimiserConfig(BaseConfig):
    """AdamW with linear warm-up and cosine decay to zero."""

    renamed: ClassVar[Mapping[str, str]] = {
        "warmup_share": "warmup_ratio",
        "gradient_clip": "max_grad_norm",
    }

    learning_rate: PositiveFloat = 2e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_ratio: Fraction = Field(0.05, description="fraction of the steps that warm up")
    max_grad_norm: PositiveFloat = 1.0


class WorkerRange(BaseConfig):
    """Elastic training: as many workers as the cluster has room for, from `min` to `max`."""

    min: PositiveInt
    max: PositiveInt

    @model_validator(mode="after")
    def _in_order(self) -> WorkerRange:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        return self


def _form_of_workers(value: Any) -> str:
    return "<range>" if isinstance(value, dict | WorkerRange) else "<number>"


# The form that is given decides, so that an error explains the form that was meant.
Workers = Annotated[
    Annotated[PositiveInt, Tag("<number>")] | Annotated[WorkerRange, Tag("<range>")],
    Discriminator(_form_of_workers),
]


class ClusterConfig(BaseConfig):
    """How training is distributed: Ray Train workers and the engine."""

    workers: Workers = Field(
        2,
        description="number of workers, or {min, max}: the run continues with fewer when a node "
        "leaves and with more when one joins, with the same users in every step",
    )
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    engine: Literal["deepspeed", "torch"] = "deepspeed"
    zero_stage: Literal[0, 2, 3] = 0
    max_failures: NonNegativeInt = Field(
        1, description="worker failures after which the run resumes"
    )
    launcher: Literal["ray", "local"] = Field(
        "ray", description="`local` runs one worker in this process, without Ray"
    )

    @property
    def partitions_weights(self) -> bool:
        """Whether each worker holds a part of the model's weights alone."""
        return self.engine == "deepspeed" and self.zero_stage == 3

    @property
    def most_workers(self) -> int:
        """The largest number of workers, which determines the batch."""
        return self.workers.max if isinstance(self.workers, WorkerRange) else self.workers


class ValidationConfig(BaseConfig):
    """Validation while training: HitRatio@1 by likelihood on some validation rows."""

    renamed: ClassVar[Mapping[str, str]] = {"every": "eval_steps", "rows": "max_rows"}

    eval_steps: PositiveInt = Field(20, description="optimiser steps between validations")
    max_rows: PositiveInt = 64


class TrainingSettings(BaseConfig):
    """Settings of fine-tuning and alignment; a pipeline's `sft` section has these."""

    renamed: ClassVar[Mapping[str, str]] = {
        "micro_batch": "micro_batch_size",
        "accumulation": "gradient_accumulation_steps",
        "rows": "max_rows",
    }
    set_by_pipeline: ClassVar[frozenset[str]] = frozenset({"data", "output", "seed"})

    policy: PolicySettings = PolicySettings()
    optimiser: OptimiserConfig = OptimiserConfig()
    cluster: ClusterConfig = ClusterConfig()
    validation: ValidationConfig = ValidationConfig()
    micro_batch_size: PositiveInt = Field(4, description="users per worker and forward pass")
    token_budget: PositiveInt | None = Field(
        16_384,
        description="most tokens of a packed row, of which a longer micro-batch has several of "
        "about the same length; null packs a micro-batch into one row",
    )
    gradient_accumulation_steps: PositiveInt = Field(
        1, description="micro-batches per optimiser step"
    )
    epochs: PositiveInt = 1
    max_rows: PositiveInt | None = Field(
        None, description="training rows drawn at random; None takes all"
    )
    hint_dropout: Fraction = Field(
        0.0,
        description="share of training rows whose hints are left out at random, so that the "
        "policy also learns to read titles",
    )
    hint_item_dropout: Fraction = Field(
        0.0,
        description="share of the candidates of other rows whose hints are left out, as those of "
        "new items are, so that the policy reads the titles of what recommenders do not know",
    )
    curriculum: Literal["none", "linear"] = Field(
        "none",
        description="with vector hints, `linear` (LLaRA): step t of T reads vectors with "
        "probability t / T, and plain text otherwise, where the projector rests",
    )
    mlflow: str | None = Field(
        None, description="tracking URI of MLflow, in addition to TensorBoard files"
    )

    @property
    def users_per_step(self) -> int:
        """Users in one optimiser step over all workers."""
        return self.micro_batch_size * self.gradient_accumulation_steps * self.cluster.most_workers


class SftConfig(TrainingSettings, StageFolders):
    """`raypo sft`: token-mean negative log-likelihood of the target's title."""

    policy: PolicyConfig = PolicyConfig()
    seed: NonNegativeInt = 0


SharingScope = Literal["step", "micro_batch"]


class AlignSettings(TrainingSettings):
    """Settings of alignment, as a pipeline's `align` section has them."""

    set_by_pipeline: ClassVar[frozenset[str]] = TrainingSettings.set_by_pipeline | {"recommender"}

    objective: ObjectiveConfig = ObjectiveConfig()
    negatives: PositiveInt = Field(3, description="sampled negatives per user (n)")
    negative_sampling: NegativeSampling = Field(
        "uniform",
        description="uniform, popular, similar, recommender (its highest scores) or self-play (the "
        "policy's own wrong answers); or a mapping of several to weights, by which each negative's "
        "source is drawn",
    )
    negative_options: NegativeOptions = NegativeOptions()
    negatives_from: Literal["candidates", "catalogue"] = Field(
        "candidates",
        description="what negatives are drawn from: the row's candidates, which the prompt lists, "
        "or all items that the user did not interact with in training",
    )
    sharing_scope: SharingScope = Field(
        "step",
        description="users who share negatives and statistics: all of an optimiser step, however "
        "it is cut into workers and micro-batches, or one micro-batch of all workers, as in the "
        "papers' code. They differ with gradient_accumulation_steps above 1 only, where `step` "
        "takes one more forward pass for objectives that share",
    )
    reference: Literal["precomputed", "on-the-fly"] = Field(
        "precomputed",
        description="reference log-probs: one pass before training, cached by content; or a frozen "
        "copy of the adapter, with one more forward pass per step",
    )

    @property
    def negative_sources(self) -> dict[str, float]:
        """Probability of each source of negatives by name, in the order of NEGATIVE_SOURCES."""
        given = self.negative_sampling
        weights = {given: 1.0} if isinstance(given, str) else given
        total = sum(weights.values())
        # One order: equal mixtures draw the same negatives, however they are written.
        return {name: weights[name] / total for name in NEGATIVE_SOURCES if name in weights}

    @model_validator(mode="after")
    def _self_play_scores_candidates(self) -> AlignSettings:
        if self.negatives_from == "catalogue" and "self-play" in self.negative_sources:
            raise ValueError(
                "negatives_from: self-play scores the candidates alone; use "
                "negatives_from=candidates"
            )
        return self


class AlignConfig(AlignSettings, StageFolders):
    """`raypo align`: preference alignment of the SFT policy."""

    policy: PolicyConfig = PolicyConfig()
    recommender: LocalPath | None = Field(
        None, description="run folder of the sequential recommender"
    )
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _curriculum_is_of_fine_tuning(self) -> AlignConfig:
        if self.curriculum != "none":
            raise ValueError("curriculum: is of `raypo sft`; alignment reads vectors in all steps")
        return self

    @model_validator(mode="after")
    def _sampling_has_its_recommender(self) -> AlignConfig:
        sources, by_items = self.negative_sources, self.negative_options.similarity == "items"
        which = "recommender" if "recommender" in sources else None
        if "similar" in sources and by_items:
            which = "similar by item vectors"
        if which is not None and self.recommender is None:
            raise ValueError(
                f"recommender: negative_sampling {which} needs one; give its run folder"
            )
        return self

    @model_validator(mode="after")
    def _needs_sft_adapter(self) -> AlignConfig:
        if self.policy.adapter is None:
            raise ValueError(
                "policy.adapter: alignment starts from an SFT adapter; give its folder"
            )
        return self
