"""Logs and titles to a prepared data set: sequences, chronological splits, candidate sets.

Pure functions over tables around one function that reads and writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raypo.config import InputError, PrepareConfig
from raypo.data.negatives import sample_untouched
from raypo.data.read import read_interactions, read_items
from raypo.data.titles import display_titles
from raypo.data.writing import SPLITS, existing_dataset, write_dataset
from raypo.runs import Progress, file_hash, no_progress, value_hash

_VERSION = 2  # raised whenever the same inputs and options come to give another data set


def prepare(config: PrepareConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """Prepare a data set; one that the same inputs and options made is recognised.

    Returns:
        What `dataset.json` holds.

    Raises:
        InputError: unreadable or malformed inputs, more candidates than the catalogue allows, an
            empty split, or an output folder that holds something else.
    """
    source, options, key = _identity(config)
    existing = existing_dataset(config.output, key)
    if existing is not None:
        return existing

    progress(0, 5, "reading")
    items = read_items(config.items, config.item_field, config.title_field, config.year_field)
    log = read_interactions(
        config.interactions, config.user_field, config.item_field, config.time_field
    )
    log = _in_time_order(log, items, config)
    kept = log if config.maximum_rows is None else log.tail(config.maximum_rows)
    user_ids, users = pd.factorize(kept["user"])
    kept = kept.assign(user_id=user_ids)
    progress(1, 5, "sequences")
    rows = slide(kept, config.history_length, config.minimum_history)
    splits = split_by_time(rows, config.split)
    _refuse_empty_splits(splits, config)
    progress(2, 5, "candidates")
    touched = _touched(log, users)
    _refuse_small_catalogue(splits, touched, users, len(items), config)
    for index, name in enumerate(SPLITS[1:], start=1):
        splits[name]["candidates"] = draw_candidates(
            splits[name], touched, len(items), config.candidates, (config.seed, index)
        )
    progress(3, 5, "titles")
    years = items["year"].tolist() if config.year_field else None
    catalogue = pd.DataFrame(
        {
            "item_id": np.arange(len(items)),
            "source_id": items["item"].to_numpy(),
            "title": display_titles(items["title"].tolist(), years, config.clean_titles),
            "popularity": popularity(splits["train"], len(items)),
        }
    )
    progress(4, 5, "writing")
    info = {
        "source": source,
        "options": options,
        "seed": config.seed,
        "key": key,
        "counts": {
            "users": len(users),
            "items": len(items),
            "interactions": len(kept),
            **{name: len(frame) for name, frame in splits.items()},
        },
    }
    result = write_dataset(config.output, splits, catalogue, info)
    progress(5, 5, "done")
    return result


def dataset_key(config: PrepareConfig) -> str:
    """Hash of the content of the inputs and of the options: the same key, the same data set."""
    return _identity(config)[2]


def _identity(config: PrepareConfig) -> tuple[dict[str, Any], dict[str, Any], str]:
    source = {"interactions": _file(config.interactions), "items": _file(config.items)}
    options = config.model_dump(mode="json", exclude={"interactions", "items", "output"})
    hashes = {name: file["sha256"] for name, file in source.items()}
    return source, options, value_hash([_VERSION, hashes, options])


def slide(log: pd.DataFrame, history_length: int, minimum_history: int) -> pd.DataFrame:
    """One row per interaction that has enough before it.

    Args:
        log: columns user_id, item_id, time; in time order, ties as they stand.
        history_length: most recent items kept.
        minimum_history: interactions a row's user must have before it.

    Returns:
        Rows user_id, history, target, timestamp, in the order of `log`.
    """
    sequences: dict[int, list[int]] = {}
    rows = []
    for user, item, time in zip(log["user_id"], log["item_id"], log["time"], strict=True):
        before = sequences.setdefault(user, [])
        if len(before) >= minimum_history:
            rows.append((user, before[-history_length:], item, int(time)))
        before.append(item)
    return pd.DataFrame(rows, columns=["user_id", "history", "target", "timestamp"])


def split_by_time(rows: pd.DataFrame, shares: tuple[int, int, int]) -> dict[str, pd.DataFrame]:
    """Cut rows that are in time order into train, validation and test by `shares`."""
    cuts = np.cumsum(shares)[:2] * len(rows) // sum(shares)
    parts = np.split(np.arange(len(rows)), cuts)
    return {
        name: rows.iloc[part].reset_index(drop=True)
        for name, part in zip(SPLITS, parts, strict=True)
    }


def draw_candidates(
    rows: pd.DataFrame,
    touched: dict[int, set[int]],
    num_items: int,
    size: int,
    seed: tuple[int, ...],
) -> list[list[int]]:
    """Each row's target, at a random position, among items its user never touched.

    Every row has a generator of its own, so that the result does not depend on the order or the
    process in which rows are drawn.

    Args:
        rows: columns user_id and target; the index is the row's number in its split.
        touched: what each user touched, before and after the row.
        num_items: items in the catalogue.
        size: candidates per row, target included.
        seed: the row's number is added to it.
    """
    drawn = []
    for row, user, target in zip(rows.index, rows["user_id"], rows["target"], strict=True):
        generator = np.random.default_rng([*seed, row])
        candidates = sample_untouched(generator, touched[user], num_items, size - 1)
        candidates.insert(int(generator.integers(size)), int(target))
        drawn.append(candidates)
    return drawn


def popularity(train: pd.DataFrame, num_items: int) -> np.ndarray:
    """Occurrences of each item in the training sequences, each interaction counted once.

    A user's training sequence is the history of the user's first training row, then its targets:
    every later history holds nothing else, because training rows are a user's earliest.

    Returns:
        Counts, [num_items].
    """
    counts = np.zeros(num_items, dtype=np.int64)
    first = train.drop_duplicates("user_id")
    for items in (train["target"].to_numpy(), *first["history"]):
        np.add.at(counts, np.asarray(items, dtype=np.int64), 1)
    return counts


def _file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return {"file": path.name, "sha256": file_hash(path)}


def _in_time_order(log: pd.DataFrame, items: pd.DataFrame, config: PrepareConfig) -> pd.DataFrame:
    """The log by time, ties as in the file, with dense item ids."""
    positions = pd.Series(np.arange(len(items)), index=items["item"])
    item_ids = log["item"].map(positions)
    if item_ids.isna().any():
        bad = log[item_ids.isna()].iloc[0]
        raise InputError(
            f"{config.interactions}:{bad['line']}: item {bad['item']!r} is not in {config.items}"
        )
    log = log.assign(item_id=item_ids.astype("int64"))
    return log.sort_values("time", kind="stable", ignore_index=True)


def _touched(log: pd.DataFrame, users: pd.Index) -> dict[int, set[int]]:
    """What each user touched anywhere in the log, also before the interactions that are kept."""
    by_name = {str(name): set(items.tolist()) for name, items in log.groupby("user")["item_id"]}
    return {user: by_name[str(name)] for user, name in enumerate(users)}


def _refuse_small_catalogue(
    splits: dict[str, pd.DataFrame],
    touched: dict[int, set[int]],
    users: pd.Index,
    num_items: int,
    config: PrepareConfig,
) -> None:
    """Training draws candidates of the same number, so that its users count as well."""
    drawn_for = set().union(*(frame["user_id"].unique() for frame in splits.values()))
    for user in sorted(drawn_for):
        free = num_items - len(touched[user])
        if free < config.candidates - 1:
            raise InputError(
                f"candidates: {config.candidates} asked for, but {config.user_field} "
                f"{users[user]!r} leaves only {free} of {num_items} items untouched; ask for fewer"
            )


def _refuse_empty_splits(splits: dict[str, pd.DataFrame], config: PrepareConfig) -> None:
    empty = [name for name, frame in splits.items() if frame.empty]
    if empty:
        raise InputError(
            f"{config.interactions}: no rows left for {', '.join(empty)}; every row needs a user "
            f"with {config.minimum_history} earlier interactions (minimum_history)"
        )
