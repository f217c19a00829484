"""Logs, and data sets prepared from them, for the tests of preparation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from raypo.audit import audit_summary
from raypo.config import PrepareConfig
from raypo.data.dataset import Dataset, load_dataset
from raypo.data.prepare import prepare
from tests.data.conftest import write_lines

MakeConfig = Callable[..., PrepareConfig]
Log = list[tuple[str, str, int]]
Option = dict[str, object]


def prepared(config: PrepareConfig) -> Dataset:
    prepare(config, audit=audit_summary)
    return load_dataset(config.output)


def ordered(log: Log) -> Log:
    return sorted(log, key=lambda row: row[2])  # stable: ties stay in file order


def all_rows(data: Dataset) -> pd.DataFrame:
    return pd.concat([data.train, data.validation, data.test], ignore_index=True)


def expected_rows(log: Log, kept: Log, history_length: int, minimum_history: int) -> list[object]:
    """(user, history, target, time) of a filtered log in order, users by name."""
    sequences: dict[str, list[str]] = {}
    rows: list[object] = []
    for user, item, time in kept:
        before = sequences.setdefault(user, [])
        if len(before) >= minimum_history:
            rows.append((user, tuple(before[-history_length:]), item, time))
        before.append(item)
    return rows


def named_rows(data: Dataset, frame: pd.DataFrame, kept: Log) -> list[object]:
    """The same of a prepared split."""
    names = list(dict.fromkeys(user for user, _, _ in kept))
    items = data.items["source_id"].tolist()
    return [
        (names[row.user_id], tuple(items[i] for i in row.history), items[row.target], row.timestamp)
        for row in frame.itertuples()
    ]


def core(log: Log, users: int, items: int) -> Log:
    """Remove one interaction at a time, as long as a user or an item has too few."""
    left = list(log)
    while True:
        user = Counter(row[0] for row in left)
        item = Counter(row[1] for row in left)
        bad = [row for row in left if user[row[0]] < users or item[row[1]] < items]
        if not bad:
            return left
        left.remove(bad[0])


def write_log(folder: Path, log: Log, name: str = "log.inter") -> Path:
    header = "user_id:token\titem_id:token\ttimestamp:float"
    return write_lines(folder / name, [header] + [f"{u}\t{i}\t{t}" for u, i, t in log])
