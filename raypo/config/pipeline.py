"""Pipelines."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from raypo.config.base import BaseConfig, NonNegativeInt
from raypo.config.paths import LocalPath


class PipelineConfig(BaseConfig):
    """The whole way: data set, recommender, SFT, alignment, evaluation and report.

    A stage's section holds that stage's settings, without what the pipeline fills in itself:
    `data`, `output`, `seed`, the model, and the adapter or recommender of the stage before.
    """

    output: LocalPath = Field(description="folder of all the stages' run folders")
    title: str = "raypo"
    seed: NonNegativeInt = Field(
        0, description="of training; data and test rows keep the seed they are given"
    )
    builtin_data: Literal["movielens-100k"] | None = Field(
        None, description="fetched by name; otherwise `prepare` names the user's own files"
    )
    model: str = "smollm2-135m-instruct"
    baselines: tuple[Literal["gru4rec", "caser"], ...] = Field(
        (),
        description="sequential recommenders that are trained for comparison beside `recommender`",
    )
    prepare: dict[str, Any] = Field(default={})
    recommender: dict[str, Any] = Field(default={})
    sft: dict[str, Any] = Field(default={})
    align: dict[str, Any] = Field(default={})
    evaluate: dict[str, Any] = Field(default={})
    expected_minutes: dict[str, float] = Field(
        default={}, description="stage -> minutes, in order: only to say how long is left in all"
    )
