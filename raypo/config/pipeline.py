"""Pipelines: from interaction logs to the report."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from raypo.config.base import BaseConfig, NonNegativeInt
from raypo.config.data import FoldsConfig, PrepareSettings, RecommenderSettings
from raypo.config.evaluation import CatalogueScope, EvaluateSettings
from raypo.config.fusion import FuseSettings
from raypo.config.loading import parse_config
from raypo.config.paths import LocalPath
from raypo.config.policy import HintKind
from raypo.config.training import AlignSettings, TrainingSettings

SCALES = ("smoke", "demo", "full")


class PipelineConfig(BaseConfig):
    """Data preparation, recommender, SFT, alignment, evaluation and report.

    The section of a stage holds the settings of that stage. The pipeline itself sets `data`,
    `output`, the seed of training, the model, and the adapters and recommenders of earlier stages.
    """

    output: LocalPath = Field(description="folder of all run folders")
    title: str = Field("raypo", description="heading of the report")
    seed: NonNegativeInt = Field(
        0, description="of training; `prepare` and `evaluate` have seeds of their own"
    )
    builtin_data: Literal["movielens-100k"] | None = Field(
        None, description="data set to fetch by name; without it `prepare` names the user's files"
    )
    model: str = Field("smollm2-135m-instruct", description="folder, or a built-in model's name")
    baselines: tuple[Literal["gru4rec", "caser", "morec"], ...] = Field(
        (),
        description="sequential recommenders to train for comparison, in addition to `recommender`",
    )
    hints: HintKind = Field(
        "none",
        description="what prompts say of a recommender's knowledge: none, rank, order or vector; "
        "for SFT, alignment and evaluation alike",
    )
    hint_sources: tuple[Literal["recommender", "popularity", "item-knn", "markov-chain"], ...] = (
        Field(("recommender",), min_length=1, description="whose hints; `recommender` is the stage")
    )
    hint_fusion: bool = Field(False, description="one hint of all sources instead of one of each")
    prepare: PrepareSettings = PrepareSettings()
    recommender: RecommenderSettings = RecommenderSettings()
    sft: TrainingSettings = TrainingSettings()
    align: AlignSettings = AlignSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    fuse: FuseSettings | None = Field(
        FuseSettings(),
        description="fuse recommenders and heuristics without and with the aligned policy; null "
        "leaves it out",
    )
    catalogue: CatalogueScope | None = Field(
        None,
        description="rank the catalogue too, for a section of the report: `retrieved:K` by the "
        "recommender, or with sft.policy.prompt=history `all` or `beam:K`",
    )
    expected_minutes: dict[str, float] = Field(
        default={},
        description="stage -> minutes, in the stages' order; used only to show the time left",
    )

    @property
    def folds(self) -> dict[str, Any]:
        """Settings of the recommender's folds, which hints at training rows need."""
        given = self.recommender.folds
        if self.hints == "none" and given is None:
            return {}
        return {"folds": (given or FoldsConfig()).model_dump(mode="json")}

    @model_validator(mode="after")
    def _has_one_source_of_data(self) -> PipelineConfig:
        for name in ("interactions", "items"):
            given = getattr(self.prepare, name) is not None
            if self.builtin_data is None and not given:
                raise ValueError(
                    f"prepare.{name}: required, not given; or set builtin_data=movielens-100k"
                )
            if self.builtin_data is not None and given:
                raise ValueError(
                    f"prepare.{name}: the pipeline sets this itself with builtin_data; leave one "
                    "of the two out"
                )
        return self


def scale_config(scale: str, output: str | Path, seed: int) -> PipelineConfig:
    """The built-in pipeline on MovieLens-100K.

    Args:
        scale: one of SCALES.
        output: folder or URL of its run folders.
        seed: of training.
    """
    text = resources.files("raypo").joinpath(f"scales/{scale}.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text) | {"output": output, "seed": seed}
    return parse_config(PipelineConfig, values, source=f"scale {scale}")
