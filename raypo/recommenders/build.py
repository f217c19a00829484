"""The kinds of sequential recommenders and the settings that each is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raypo.errors import InputError
from raypo.recommenders.base import SequentialRecommender
from raypo.recommenders.caser import Caser
from raypo.recommenders.gru4rec import GRU4Rec
from raypo.recommenders.items import ItemTable, TextItems
from raypo.recommenders.sasrec import SASRec


def _sasrec(num_items: int, hidden: int, **settings: Any) -> SASRec:
    return SASRec(ItemTable(num_items, hidden), hidden, **settings)


def _morec(num_items: int, hidden: int, text_size: int, **settings: Any) -> SASRec:
    return SASRec(TextItems(num_items, text_size, hidden), hidden, **settings)


_ATTENTION = ("hidden", "layers", "heads", "max_length", "dropout")
_KINDS: dict[str, tuple[Callable[..., SequentialRecommender], tuple[str, ...]]] = {
    "sasrec": (_sasrec, _ATTENTION),
    "gru4rec": (GRU4Rec, ("hidden", "layers", "max_length", "dropout")),
    "caser": (
        Caser,
        ("hidden", "horizontal_filters", "vertical_filters", "max_length", "dropout"),
    ),
    "morec": (_morec, (*_ATTENTION, "text_size")),
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


def text_items(model: SequentialRecommender) -> TextItems:
    """The item vectors of MoRec, which come from texts.

    Raises:
        TypeError: the model has vectors by id.
    """
    items = getattr(model, "items", None)
    if not isinstance(items, TextItems):
        raise TypeError(f"{type(items).__name__} are no vectors of texts")
    return items
