"""Searches over alignment settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from raypo.config.base import BaseConfig, NonNegativeInt, PositiveFloat, PositiveInt
from raypo.config.paths import LocalPath
from raypo.config.training import AlignConfig


class SearchRange(BaseConfig):
    """Numbers from `low` to `high`, both included; whole ones where the setting is a whole one."""

    low: float
    high: float
    log: bool = Field(False, description="draw the logarithm evenly: for settings of any magnitude")
    step: PositiveFloat | None = Field(None, description="low, low + step, …")

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


# One setting's values: those listed, or a range.
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
    """When asynchronous successive halving (arXiv 1810.05934) stops a trial."""

    grace_steps: PositiveInt = Field(20, description="optimiser steps before any trial is stopped")
    reduction_factor: Annotated[float, Field(gt=1)] = Field(
        3.0, description="the best 1 / factor go on, at grace_steps, factor x grace_steps, …"
    )


class TuneConfig(BaseConfig):
    """`raypo tune`: a search over alignment settings; keys are dotted paths of AlignConfig."""

    renamed: ClassVar[Mapping[str, str]] = {"concurrent": "max_concurrent_trials"}

    align: AlignConfig = Field(
        description="what all trials share; its output, OUTPUT/best unless given, is for the best"
    )
    output: LocalPath
    space: dict[str, Choice] = Field(
        min_length=1, description="dotted key -> values to choose from, or {low, high, log, step}"
    )
    sampler: Literal["tpe", "random", "grid"] = Field(
        "tpe", description="Optuna's tree-structured Parzen estimator, by lot, or all combinations"
    )
    trials: PositiveInt = Field(16, description="how many; a grid has its own number")
    max_concurrent_trials: PositiveInt = Field(1, description="trials that run side by side")
    seed: NonNegativeInt = 0
    scheduler: Literal["asha", "none"] = Field("none", description="what stops hopeless trials")
    asha: AshaConfig = AshaConfig()

    @model_validator(mode="before")
    @classmethod
    def _best_goes_beside(cls, values: Any) -> Any:
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
