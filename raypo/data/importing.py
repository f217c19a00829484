"""Files as S-DPO publishes them to a prepared data set, candidates as published."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raypo.config import ImportConfig, InputError
from raypo.data.joined_titles import JoinedTitles
from raypo.data.published_rows import PublishedRow, named_titles, read_rows, resolve_histories
from raypo.data.readers import ItemColumns, RejectedRows, read_items
from raypo.data.readers.sources import resolve_sources
from raypo.data.split import SPLITS
from raypo.data.writing import (
    QUARANTINE,
    Audit,
    existing_dataset,
    write_dataset,
    write_parquet,
)
from raypo.io.files import file_hash, value_hash, write_text
from raypo.io.progress import Progress, no_progress

_VERSION = 3


def import_published(
    config: ImportConfig, progress: Progress = no_progress, audit: Audit | None = None
) -> dict[str, Any]:
    """Import a published data set, unless the folder already holds it.

    Rows have a history, a candidate list and a target, all titles. Items get ids in the order in
    which they appear. Where the files name no users, a row whose history continues the previous
    row's belongs to the same user. They hold no times: rows are numbered instead. Without training
    rows the data set can be evaluated on, and nothing else.

    Args:
        config: the files.
        progress: receives the progress.
        audit: its result goes into `dataset.json`; None leaves it out.

    Returns:
        The content of `dataset.json`.

    Raises:
        InputError: a wrong file or row (named), or an output folder with other content.
    """
    files = {"train": config.train, "validation": config.validation, "test": config.test}
    given = {name: path for name, path in files.items() if path is not None}
    for path in (*given.values(), *([config.items] if config.items else [])):
        if not path.is_file():
            raise InputError(f"{path}: no such file")
    source = {name: {"file": path.name, "sha256": file_hash(path)} for name, path in given.items()}
    if config.items is not None:
        source["items"] = {"file": Path(config.items).name, "sha256": file_hash(config.items)}
    excluded = {"train", "validation", "test", "output", "paper", "items"}
    options = config.model_dump(mode="json", exclude=excluded)
    key = value_hash([_VERSION, source, options])
    existing = existing_dataset(config.output, key)
    if existing is not None:
        return existing
    progress(0, 3, "reading")
    ids: dict[str, int] = {}
    rejected = RejectedRows(config.malformed)
    frames = _frames(given, config, ids, rejected)
    named_users = config.user_field is not None
    splits = _with_validation(_numbered(frames, named_users), config)
    count = len(splits["test"]["candidates"].iat[0])
    splits["train"] = splits["train"].drop(columns="candidates")
    source_ids = _source_ids(config, ids)
    items = pd.DataFrame(
        {
            "item_id": np.arange(len(ids)),
            "source_id": source_ids,
            "title": list(ids),
            "popularity": _popularity(splits, len(ids)),
        }
    )
    sequences, interactions = _sequences(splits)
    users = "named" if named_users else "unknown"
    info: dict[str, Any] = {
        "source": source,
        "options": options
        | {
            "candidates": count,
            "timestamps": False,
            "users": users,
            "popularity": "training" if config.train is not None else "test histories",
        },
        "seed": 0,
        "key": key,
        "counts": {
            "users": sequences,
            "items": len(ids),
            "interactions": interactions,
            **{name: len(frame) for name, frame in splits.items()},
        },
    }

    def fill(folder: Path) -> dict[str, Any]:
        for name, frame in splits.items():
            write_parquet(frame, folder / f"{name}.parquet")
        write_parquet(items, folder / "items.parquet")
        if rejected.count:
            info["counts"]["quarantined"] = rejected.count
            write_text(folder / QUARANTINE, rejected.drain())
        return info

    progress(1, 3, "writing and auditing")
    result = write_dataset(config.output, fill, audit)
    progress(3, 3, "done")
    return result


def _popularity(splits: dict[str, pd.DataFrame], num_items: int) -> np.ndarray:
    """Occurrences in training; without training rows in the test rows' histories, [num_items].

    Each user's history counts once, the longest that the test rows show.
    """
    if len(splits["train"]):
        return popularity(splits["train"], num_items)
    last = splits["test"].drop_duplicates("user_id", keep="last")["history"]
    return np.bincount(np.concatenate(last.to_list()), minlength=num_items)


def popularity(train: pd.DataFrame, num_items: int) -> np.ndarray:
    """Occurrences of each item in the training sequences, each interaction counted once.

    A user's training sequence is the history of the user's first training row, then its targets.
    Later histories hold no other items.

    Returns:
        Counts, [num_items].
    """
    counts = np.zeros(num_items, dtype=np.int64)
    first = train.drop_duplicates("user_id")
    for items in (train["target"].to_numpy(), *first["history"]):
        np.add.at(counts, np.asarray(items, dtype=np.int64), 1)
    return counts


def _sequences(splits: dict[str, pd.DataFrame]) -> tuple[int, int]:
    """Number of sequences, and of interactions in them (first histories and targets)."""
    rows = pd.concat(splits.values())
    first = rows.drop_duplicates("user_id")
    return len(first), int(first["history"].map(len).sum()) + len(rows)


def _frames(
    given: dict[str, Path], config: ImportConfig, ids: dict[str, int], rejected: RejectedRows
) -> dict[str, pd.DataFrame]:
    """Rows of each file with columns history, target, candidates, user; fills the items' ids.

    Raises:
        InputError: a file has no usable row, or its rows have different numbers of candidates.
    """
    rows = {name: read_rows(path, config, rejected) for name, path in given.items()}
    known = set().union(*(named_titles(of_file) for of_file in rows.values()))
    titles = JoinedTitles(known, config.separator)

    def numbered(names: Sequence[str]) -> list[int]:
        return [ids.setdefault(title, len(ids)) for title in names]

    frames = {}
    for name, path in given.items():
        resolved = resolve_histories(path, rows[name], titles, rejected)
        if not resolved:
            raise InputError(f"{path}: has no usable rows")
        _require_equal_candidates(path, [row for row, _ in resolved])
        frames[name] = pd.DataFrame(
            [
                (numbered(history), numbered([row.target])[0], numbered(row.candidates), row.user)
                for row, history in resolved
            ],
            columns=["history", "target", "candidates", "user"],
        )
    return frames


def _require_equal_candidates(path: Path, rows: Sequence[PublishedRow]) -> None:
    count = len(rows[0].candidates)
    for row in rows:
        if len(row.candidates) != count:
            raise InputError(
                f"{path}:{row.line}: has {len(row.candidates)} candidates, unlike line "
                f"{rows[0].line} with {count}"
            )


def _with_validation(
    frames: dict[str, pd.DataFrame], config: ImportConfig
) -> dict[str, pd.DataFrame]:
    """All splits: those that are not given are empty, but validation is cut from training."""
    empty = frames["test"].iloc[:0]
    train, validation = frames.get("train", empty), frames.get("validation", empty)
    if config.validation is None and len(train):
        cut = len(train) * 9 // 10
        train, validation = train.iloc[:cut], train.iloc[cut:].reset_index(drop=True)
    splits = {"train": train, "validation": validation, "test": frames["test"]}
    return {name: splits[name] for name in SPLITS}


def _source_ids(config: ImportConfig, titles: Collection[str]) -> list[str]:
    """The catalogue's id of each title; the title itself without a catalogue.

    Raises:
        InputError: the catalogue lacks a title, or has it more than once.
    """
    if config.items is None:
        return list(titles)
    sources = resolve_sources([str(config.items)])
    columns = ItemColumns(config.items_format, config.item_field, config.title_field)
    items = read_items(sources, RejectedRows("stop"), columns)
    names = items["title"].str.strip()
    wanted = names.isin(set(titles))
    repeated = names[wanted & names.duplicated(keep=False)]
    if len(repeated):
        raise InputError(f"{config.items}: {repeated.iat[0]!r} is the title of several ids")
    found = dict(zip(names[wanted], items["item"][wanted], strict=True))
    missing = [title for title in titles if title not in found]
    if missing:
        raise InputError(
            f"{config.items}: lacks {len(missing)} of {len(titles)} titles, such as {missing[0]!r}"
        )
    return [str(found[title]) for title in titles]


def _numbered(frames: dict[str, pd.DataFrame], named_users: bool) -> dict[str, pd.DataFrame]:
    """The same with users, by name or by continued histories, and row numbers instead of times."""
    names: dict[str, int] = {}
    user, number = -1, 0
    numbered = {}
    for file, frame in frames.items():
        users, before = [], None
        for history, target, own_name in zip(
            frame["history"], frame["target"], frame["user"], strict=True
        ):
            if named_users:
                user = names.setdefault(own_name, len(names))
            elif before is None or list(history) not in (before, before[1:]):
                user += 1
            users.append(user)
            before = [*history, target]
        times = np.arange(number, number + len(frame))
        frame = frame.assign(user_id=np.array(users, dtype=np.int64), timestamp=times)
        numbered[file] = frame.drop(columns="user")
        number += len(frame)
    return numbered
