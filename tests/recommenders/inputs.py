"""Shared by the tests of recommenders: small settings of each kind and a data set to learn."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from raypo.data.dataset import Dataset
from raypo.recommenders.base import SequentialRecommender
from raypo.recommenders.build import build_recommender, text_items

KINDS = ("sasrec", "gru4rec", "caser", "morec")
SMALL: dict[str, Any] = {
    "hidden": 16,
    "layers": 2,
    "heads": 2,
    "horizontal_filters": 3,
    "vertical_filters": 2,
    "max_length": 5,
    "dropout": 0.2,
    "text_size": 24,
}


def small_model(kind: str, num_items: int = 20, **changes: Any) -> SequentialRecommender:
    """An untrained model in evaluation mode, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_recommender(SMALL | {"kind": kind} | changes, num_items).eval()
        if kind == "morec":
            text_items(model).set_texts(torch.randn(num_items, SMALL["text_size"]))
        return model


def circle_dataset(folder: Path) -> Dataset:
    """Users walk around a circle of 12 items: the next item is certain."""
    rows = [
        {
            "user_id": user,
            "history": [(user + offset + position) % 12 for position in range(4)],
            "target": (user + offset + 4) % 12,
            "timestamp": offset,
        }
        for user in range(40)
        for offset in range(3)
    ]
    train = pd.DataFrame(rows)
    held = train.head(36).copy()
    held["candidates"] = [[(t + shift) % 12 for shift in (3, 0, 5, 7)] for t in held["target"]]
    items = pd.DataFrame({"item_id": range(12), "title": [str(i) for i in range(12)]})
    return Dataset(folder, train, held, held, items, {"files": {}})
