"""Small published files for the tests of importing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raypo.config import ImportConfig
from raypo.data.dataset import Dataset, load_dataset
from raypo.data.importing import import_published

Row = dict[str, Any]
TITLES = ("Alien", "Brazil", "Clue", "Diva", "Eraserhead", "Fargo")


def row(history: str | Sequence[str], target: str, titles: Sequence[str] = TITLES) -> Row:
    """A row with four candidates, the target among them."""
    candidates = [target, *(title for title in titles if title != target)][:4]
    return {"historyList": history, "itemList": candidates, "trueSelection": target}


def some_rows(count: int = 6) -> list[Row]:
    """Usable rows in which each title is a target."""
    return [
        row([TITLES[(start + k) % len(TITLES)] for k in (0, 1)], TITLES[(start + 2) % len(TITLES)])
        for start in range(count)
    ]


def write_rows(path: Path, rows: Sequence[Row | str]) -> Path:
    """Write rows as JSON lines; a text is written as it is."""
    lines = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return path


def config_of(folder: Path, **options: object) -> ImportConfig:
    """Import of `train.jsonl` and `test.jsonl`, which are written unless they exist."""
    for name in ("train", "test"):
        if not (folder / f"{name}.jsonl").exists():
            write_rows(folder / f"{name}.jsonl", some_rows())
    files = {"train": folder / "train.jsonl", "test": folder / "test.jsonl"}
    return ImportConfig.model_validate(files | {"output": folder / "out"} | options)


def imported(folder: Path, **options: object) -> Dataset:
    """The data set of `config_of`."""
    config = config_of(folder, **options)
    import_published(config)
    return load_dataset(config.output)


def titles_of(data: Dataset, split: str, column: str = "history") -> list[list[str]]:
    """Titles of the lists in a column of a split."""
    return [[data.titles[item] for item in items] for items in getattr(data, split)[column]]
