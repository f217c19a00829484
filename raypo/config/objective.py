"""The objective of an alignment: a preset's name with options, or parts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_serializer, model_validator

from raypo.config.base import BaseConfig
from raypo.config.overrides import number_if_text_is_one

PARTS = ("reward", "negatives", "selection", "temperature", "aggregation", "margin", "link")
_DEFAULT = "napo"


class ObjectiveConfig(BaseConfig):
    """A preset's name with its options, or parts to compose.

    Files and overrides are flat: `{name: napo, rho: 0.2}` or `{reward: free, aggregation: softmax}`
    (`{name: napo, options: {rho: 0.2}}` is read too). Only `raypo.objectives` knows the options and
    their values; `raypo.training.objective` checks them before a run starts.
    """

    name: str | None = Field(None, description=f"a preset; {_DEFAULT} where no parts are given")
    options: dict[str, object] = Field(
        default={}, description="the preset's options; its own defaults hold for the others"
    )
    parts: dict[str, object] = Field(
        default={}, description="part -> kind, or {kind, options}, of a composed objective"
    )

    @property
    def label(self) -> str:
        """The preset's name, or `composed`."""
        return self.name or "composed"

    @model_validator(mode="before")
    @classmethod
    def _from_flat(cls, values: Any) -> Any:
        """Split flat settings into name, options and parts; None means that one is not given."""
        if not isinstance(values, Mapping):
            return values
        flat = {key: _plain(value) for key, value in values.items() if value is not None}
        options, parts = flat.pop("options", {}), flat.pop("parts", {})
        if not isinstance(options, Mapping) or not isinstance(parts, Mapping):
            return {**flat, "options": options, "parts": parts}
        for group, nested in (("options", options), ("parts", parts)):
            for key, value in nested.items():
                if flat.setdefault(key, value) != value:
                    raise ValueError(f"objective.{key}: also given as objective.{group}.{key}")
        name = flat.pop("name", None)
        composed = any(key in flat for key in PARTS if key != "selection")
        if not composed:
            return {"name": _DEFAULT if name is None else name, "options": flat}
        if name is not None:
            raise ValueError(
                f"give a preset's `name` with its options, or parts ({', '.join(PARTS)}), not both"
            )
        stray = [key for key in flat if key not in PARTS]
        if stray:
            raise ValueError(_explain_stray(stray))
        return {"parts": flat}

    @model_serializer
    def _to_flat(self) -> dict[str, object]:
        named = {} if self.name is None else {"name": self.name}
        return {**named, **self.options, **self.parts}


def _plain(value: Any) -> Any:
    """Drop what is not given, and read numbers that are text: no option is such a text."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    return number_if_text_is_one(value)


def _explain_stray(stray: list[str]) -> str:
    near = difflib.get_close_matches(stray[0], PARTS, n=1)
    if near:
        return f"objective.{stray[0]}: unknown part; did you mean {near[0]!r}?"
    return (
        f"{', '.join(sorted(stray))}: in a composed objective an option belongs to its part, such "
        "as margin: {kind: napo, alpha: 0.3}"
    )
