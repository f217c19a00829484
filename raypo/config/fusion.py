"""Fusion of evaluated models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from raypo.config.base import BaseConfig, NonNegativeInt, PositiveInt
from raypo.config.paths import LocalPath, StageFolders, local_path


def _by_name(value: Any) -> Any:
    """Folders by name; a list has the folders' own names, longer ones where two are the same."""
    if isinstance(value, Mapping) or not isinstance(value, list | tuple):
        return value
    paths = [local_path(one) if isinstance(one, str | Path) else one for one in value]
    if not all(isinstance(path, Path) for path in paths):
        return value
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.parent.name}/{path.name}" for path in paths]
    if len(set(names)) < len(names):
        raise ValueError("two runs have the same name; give them as {name: folder}")
    return dict(zip(names, paths, strict=True))


class FuseSettings(BaseConfig):
    """Settings of a fusion, as a pipeline's `fuse` section has them."""

    set_by_pipeline: ClassVar[frozenset[str]] = frozenset({"data", "output", "runs"})

    validation_rows: PositiveInt | None = Field(
        1000, description="validation rows that the weights are fitted to; None takes all"
    )
    num_bootstrap: PositiveInt = Field(2000, description="bootstrap resamples of the intervals")
    seed: NonNegativeInt = Field(0, description="of the validation rows and the resamples")


class FuseConfig(FuseSettings, StageFolders):
    """`raypo fuse`: one score from several models', by weights fitted to validation rows."""

    runs: Annotated[dict[str, LocalPath], BeforeValidator(_by_name), Field(min_length=1)] = Field(
        description="folders of `raypo evaluate` on the same rows, as a list or {name: folder}"
    )
