"""Where the negatives of alignment come from."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from raypo.config.base import BaseConfig, PositiveInt

NEGATIVE_SOURCES = ("uniform", "popular", "similar", "recommender", "self-play")

NonNegativeFloat = Annotated[float, Field(ge=0)]


def _check_sampling(value: Any) -> Any:
    """A source's name, or weights by name; refuses others with a message that names them."""
    if isinstance(value, str):
        _check_name(value)
        return value
    if not isinstance(value, Mapping) or not value:
        known = ", ".join(NEGATIVE_SOURCES)
        raise ValueError(
            f"expected one of {known}, or a mapping of several to weights; got {value!r}"
        )
    for name, weight in value.items():
        _check_name(name)
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 < weight < math.inf:
            raise ValueError(f"the weight of {name} must be a number above 0, got {weight!r}")
    return {str(name): float(weight) for name, weight in value.items()}


def _check_name(name: Any) -> None:
    if name not in NEGATIVE_SOURCES:
        near = difflib.get_close_matches(str(name), NEGATIVE_SOURCES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(NEGATIVE_SOURCES)}"
        raise ValueError(f"{name!r} is unknown; {hint}")


NegativeSampling = Annotated[str | dict[str, float], BeforeValidator(_check_sampling)]


class NegativeOptions(BaseConfig):
    """Options of the sources of negatives; those of other sources are ignored.

    A temperature of 0 takes the highest scores, and a higher one draws in proportion to
    exp(score / temperature).
    """

    popularity_exponent: NonNegativeFloat = Field(
        1.0, description="`popular` draws in proportion to popularity ** exponent"
    )
    similarity: Literal["items", "titles"] | None = Field(
        None,
        description="of `similar`: cosine of the recommender's item vectors, or of titles (TF-IDF "
        "of words and character trigrams); None is `items` where there is a recommender",
    )
    similar_temperature: NonNegativeFloat = Field(0.1, description="of a cosine")
    recommender_temperature: NonNegativeFloat = Field(
        0.0, description="of the recommender's score, a cosine too"
    )
    self_play_temperature: NonNegativeFloat = Field(
        0.0, description="of the policy's log-probs; 1 draws by its own probabilities"
    )
    self_play_rounds: PositiveInt = Field(
        1,
        description="equal parts of the run, in each of which candidates are scored by the policy "
        "that the part begins with",
    )
