"""What all configurations are made of, and the two ways in which a run ends with a message."""

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


class InputError(ValueError):
    """Something the user gave is wrong; the message names the place and what was expected."""


class StoppedRun(RuntimeError):
    """A run could not go on; the message says why, where to look, and what is left of it."""


class BaseConfig(BaseModel):
    """A configuration that knows no other fields than its own, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    # Old name -> new name of settings; an error for the old one names the new one.
    renamed: ClassVar[Mapping[str, str]] = {}


def _locations(value: Any) -> Any:
    """One path or URL or several; local ones absolute at once."""
    several = value if isinstance(value, list | tuple) else [value]
    if not several or not all(isinstance(one, str | Path) for one in several):
        return value
    return tuple(
        str(one) if "://" in str(one) else str(Path(one).expanduser().absolute()) for one in several
    )


Locations = Annotated[tuple[str, ...], BeforeValidator(_locations), Field(min_length=1)]
