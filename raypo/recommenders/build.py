"""The kinds of sequential recommenders and the settings that each is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raypo.config import InputError
from raypo.recommenders.base import SequentialRecommender
from raypo.recommenders.caser import Caser
from raypo.recommenders.gru4rec import GRU4Rec
from raypo.recommenders.sasrec import SASRec

_KINDS: dict[str, tuple[Callable[..., SequentialRecommender], tuple[str, ...]]] = {
    "sasrec": (SASRec, ("hidden", "layers", "heads", "max_length", "dropout")),
    "gru4rec": (GRU4Rec, ("hidden", "layers", "max_length", "dropout")),
    "caser": (
        Caser,
        ("hidden", "horizontal_filters", "vertical_filters", "max_length", "dropout"),
    ),
}


def build_recommender(settings: Mapping[str, Any], num_items: int) -> SequentialRecommender:
    """Make an untrained recommender.

    Args:
        settings: fields of RecommenderConfig. `kind` defaults to SASRec; settings that the kind
            does not use are ignored.
        num_items: items in the catalogue.

    Raises:
        InputError: `kind` is unknown, or a setting that the kind requires is missing; the message
            begins with the field.
    """
    kind = settings.get("kind", "sasrec")
    if kind not in _KINDS:
        raise InputError(f"kind: {kind!r} is unknown; known are {', '.join(_KINDS)}")
    make, names = _KINDS[kind]
    missing = [name for name in names if name not in settings]
    if missing:
        raise InputError(f"{missing[0]}: missing, required by {kind}")
    return make(num_items, **{name: settings[name] for name in names})
