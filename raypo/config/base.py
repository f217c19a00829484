"""The base class and the types of all configurations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


Paper = Literal["movielens", "lastfm", "goodreads", "steam"]


class BaseConfig(BaseModel):
    """A frozen configuration that refuses unknown keys.

    Attributes:
        renamed: old name -> new name of settings; the error for an old name gives the new one.
        set_by_pipeline: keys that a section of a pipeline's configuration cannot have, since the
            pipeline sets them itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    renamed: ClassVar[Mapping[str, str]] = {}
    set_by_pipeline: ClassVar[frozenset[str]] = frozenset()


def _locations(value: Any) -> Any:
    """One or several paths or URLs as a tuple; local paths become absolute."""
    locations = value if isinstance(value, list | tuple) else [value]
    if not locations or not all(isinstance(location, str | Path) for location in locations):
        return value
    return tuple(
        str(location) if "://" in str(location) else str(Path(location).expanduser().absolute())
        for location in locations
    )


Locations = Annotated[tuple[str, ...], BeforeValidator(_locations), Field(min_length=1)]
