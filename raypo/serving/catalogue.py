"""The catalogue as requests see it: items by id or title, and search by title."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from raypo.data.dataset import load_items


@dataclass(frozen=True)
class Item:
    """An item as answers show it.

    Attributes:
        id: of the user's own catalogue.
        title: as prompts show it.
        text: what else the catalogue says of it; None if the data set has no texts.
        popularity: occurrences in the training sequences.
    """

    id: str
    title: str
    text: str | None
    popularity: int


@dataclass(frozen=True)
class Example:
    """What a user of the test rows chose: item numbers."""

    history: tuple[int, ...]
    target: int


def read_examples(data: Path, count: int = 1000) -> list[Example]:
    """The first test rows of a prepared data set, for people who want to try a model."""
    file = pq.ParquetFile(data / "test.parquet")
    batch = next(file.iter_batches(count, columns=["history", "target"]), None)
    rows = [] if batch is None else batch.to_pylist()
    return [Example(tuple(row["history"]), int(row["target"])) for row in rows]


@dataclass(frozen=True)
class Catalogue:
    """A data set's items.

    Attributes:
        items: columns source_id, title, popularity and perhaps text; item i in row i.
    """

    items: pd.DataFrame

    @classmethod
    def of(cls, data: Path) -> Catalogue:
        """The catalogue of a prepared data set."""
        return cls(load_items(data))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Item:
        row = self.items.iloc[number]
        text = str(row["text"]) if "text" in self.items else None
        return Item(str(row["source_id"]), str(row["title"]), text, int(row["popularity"]))

    def number(self, name: str) -> int | None:
        """The number of an item by its id, or else by its title in any case; None if unknown."""
        found = self._by_id.get(name)
        return self._by_title.get(name.casefold().strip()) if found is None else found

    def search(self, text: str, count: int) -> list[int]:
        """Numbers of items whose title holds the text in any case.

        The title that is the text comes first, then titles that begin with it, then titles with a
        word that does; among equals the more popular first.
        """
        wanted = " ".join(text.split()).casefold()
        if not wanted:
            return [int(number) for number in self._order[:count]]
        titles = self._titles[self._order]
        holds = np.array([wanted in title for title in titles], dtype=bool)
        found = self._order[holds]
        place = np.array([_place(title, wanted) for title in titles[holds]], dtype=np.int64)
        return [int(number) for number in found[np.argsort(place, kind="stable")][:count]]

    def holding(self, text: str) -> np.ndarray:
        """Which items' texts (or titles) hold the text in any case, bool [items]."""
        column = self.items["text" if "text" in self.items else "title"]
        found: np.ndarray = column.str.contains(text, case=False, regex=False).to_numpy(dtype=bool)
        return found

    @cached_property
    def _by_id(self) -> dict[str, int]:
        return {str(name): number for number, name in enumerate(self.items["source_id"])}

    @cached_property
    def _by_title(self) -> dict[str, int]:
        return {str(title).casefold(): number for number, title in enumerate(self.items["title"])}

    @cached_property
    def _titles(self) -> np.ndarray:
        return np.array([str(title).casefold() for title in self.items["title"]], dtype=object)

    @cached_property
    def _order(self) -> np.ndarray:
        """Numbers of all items, the most popular first."""
        return np.argsort(-self.items["popularity"].to_numpy(), kind="stable")


def _place(title: str, wanted: str) -> int:
    if title.startswith(wanted):
        return 0 if title == wanted else 1
    return 2 if f" {wanted}" in title else 3
