"""Searches over alignment settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from raypo.config.base import BaseConfig, NonNegativeInt, PositiveFloat, PositiveInt
from raypo.config.paths import LocalPath
from raypo.config.training import AlignConfig


class SearchRange(BaseConfig):
    """Numbers from `low` to `high`, both included; integers where the setting is an integer."""

    low: float
    high: float
    log: bool = Field(
        False, description="draw the logarithm uniformly, for settings whose magnitude is unknown"
    )
    step: PositiveFloat | None = Field(None, description="only low, low + step, …")

    @model_validator(mode="after")
    def _is_a_range(self) -> SearchRange:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: needs low above 0, got {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step do not go together; list the values instead")
        return self


def _form(value: Any) -> str | None:
    if isinstance(value, Mapping | SearchRange):
        return "<range>"
    return "<values>" if isinstance(value, list | tuple) else None


# The values of one setting: a list, or a range.
Choice = Annotated[
    Annotated[tuple[Any, ...], Tag("<values>")] | Annotated[SearchRange, Tag("<range>")],
    Discriminator(
        _form,
        custom_error_type="no_choice",
        custom_error_message="expected a list of values or {low, high, log, step}",
        custom_error_context={},
    ),
]


class AshaConfig(BaseConfig):
    """Asynchronous successive halving (arXiv 1810.05934), which stops trials early."""

    grace_steps: PositiveInt = Field(20, description="optimiser steps before the first decision")
    reduction_factor: Annotated[float, Field(gt=1)] = Field(
        3.0, description="the best 1 / factor continue, at grace_steps, factor x grace_steps, …"
    )


class TuneConfig(BaseConfig):
    """`raypo tune`: a search over alignment settings; keys are dotted paths of AlignConfig."""

    renamed: ClassVar[Mapping[str, str]] = {"concurrent": "max_concurrent_trials"}

    align: AlignConfig = Field(
        description="settings of all trials; its output, OUTPUT/best by default, is the run folder "
        "of the best trial's configuration"
    )
    output: LocalPath
    space: dict[str, Choice] = Field(
        min_length=1, description="dotted key -> values to choose from, or {low, high, log, step}"
    )
    sampler: Literal["tpe", "random", "grid"] = Field(
        "tpe",
        description="Optuna's tree-structured Parzen estimator, random values, or a grid of all "
        "combinations",
    )
    trials: PositiveInt = Field(
        16, description="number of trials; a grid has as many as there are combinations"
    )
    max_concurrent_trials: PositiveInt = Field(1, description="trials that run at the same time")
    seed: NonNegativeInt = 0
    scheduler: Literal["asha", "none"] = Field(
        "none", description="whether and how trials with low scores are stopped early"
    )
    asha: AshaConfig = AshaConfig()

    @model_validator(mode="before")
    @classmethod
    def _best_beside_the_trials(cls, values: Any) -> Any:
        align = values.get("align") if isinstance(values, Mapping) else None
        if not isinstance(align, Mapping) or "output" in align or "output" not in values:
            return values
        return {**values, "align": {**align, "output": f"{values['output']}/best"}}

    @field_validator("space")
    @classmethod
    def _values_are_plain(cls, space: dict[str, Choice]) -> dict[str, Choice]:
        for key, choice in space.items():
            if not isinstance(choice, tuple):
                continue
            if not choice:
                raise ValueError(f"space.{key}: no values")
            for value in choice:
                if not isinstance(value, bool | int | float | str | None):
                    raise ValueError(f"space.{key}: expected plain values, got {value!r}")
        return space

    @model_validator(mode="after")
    def _best_has_a_folder_of_its_own(self) -> TuneConfig:
        if self.align.output == self.output:
            raise ValueError("align.output: is the search's own folder; leave it out")
        return self

    @model_validator(mode="after")
    def _a_grid_lists_values(self) -> TuneConfig:
        ranges = [key for key, choice in self.space.items() if isinstance(choice, SearchRange)]
        if self.sampler == "grid" and ranges:
            raise ValueError(
                f"space.{ranges[0]}: sampler grid takes lists of values, got a range; list the "
                "values or use sampler tpe or random"
            )
        return self
