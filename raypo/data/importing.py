"""Published S-DPO/LLaRA files to a prepared data set, candidates as published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from raypo.config import ImportConfig
from raypo.config.paths import uri
from raypo.data.llara_rows import read_published_llara
from raypo.data.published_rows import ImportedRow, Published, read_published_json
from raypo.data.readers import RejectedRows
from raypo.data.split import SPLITS
from raypo.data.writing import (
    QUARANTINE,
    Audit,
    existing_dataset,
    write_dataset,
    write_parquet,
)
from raypo.errors import InputError
from raypo.io.files import file_hash, value_hash, write_text
from raypo.io.progress import Progress, no_progress

_VERSION = 3  # raise it when the same files and options give another data set
_NOT_OPTIONS = {"train", "validation", "test", "items", "output", "paper"}
_ITEM_LIST = pa.list_(pa.int64())
_TRAIN = pa.schema(
    [
        ("history", _ITEM_LIST),
        ("target", pa.int64()),
        ("user_id", pa.int64()),
        ("timestamp", pa.int64()),
    ]
)
_HELD_OUT = _TRAIN.insert(2, pa.field("candidates", _ITEM_LIST))
# Empty splits have types too.
_SCHEMA = {"train": _TRAIN, "validation": _HELD_OUT, "test": _HELD_OUT}


def import_published(
    config: ImportConfig, progress: Progress = no_progress, audit: Audit | None = None
) -> dict[str, Any]:
    """Import a published data set, unless the folder already holds it.

    Rows have a history, a candidate list and a target. Items get numbers in the order in which they
    appear. If the files name no users, a row whose history continues the previous row's belongs to
    the same user. They hold no times: rows are numbered instead.

    Args:
        config: the files.
        progress: receives the progress.
        audit: its result goes into `dataset.json`; None leaves it out.

    Returns:
        The content of `dataset.json`.

    Raises:
        InputError: a wrong file or row (named), or an output folder with other content.
    """
    files = _given_files(config)
    named = files if config.items is None else files | {"items": config.items}
    source = {name: {"file": path.name, "sha256": file_hash(path)} for name, path in named.items()}
    options = config.model_dump(mode="json", exclude=_NOT_OPTIONS)
    key = value_hash([_VERSION, source, options])
    existing = existing_dataset(config.output, key)
    if existing is not None:
        return existing
    progress(0, 3, "reading")
    rejected = RejectedRows(config.malformed)
    published = _read(files, config, rejected)
    tables = _tables(published, named_users=config.user_field is not None)
    info: dict[str, Any] = {
        "source": source,
        "options": options
        | {
            "candidates": len(tables["test"]["candidates"].iat[0]),
            "timestamps": False,
            "users": "unknown" if config.user_field is None else "given",
        },
        "seed": config.seed,
        "key": key,
        "counts": _counts(tables) | published.counts,
    }

    def fill(folder: Path) -> dict[str, Any]:
        for name, table in tables.items():
            schema = _SCHEMA.get(name)
            write_parquet(table, folder / f"{name}.parquet", schema)
        if rejected.count:
            info["counts"]["quarantined"] = rejected.count
            write_text(folder / QUARANTINE, rejected.drain())
        return info

    progress(1, 3, "writing and auditing")
    result = write_dataset(config.output, fill, audit)
    progress(3, 3, "done")
    return result


def _given_files(config: ImportConfig) -> dict[str, Path]:
    """The files by the name of their split."""
    files = {"train": config.train, "validation": config.validation, "test": config.test}
    given = {name: path for name, path in files.items() if path is not None}
    for path in (*given.values(), *([] if config.items is None else [config.items])):
        if not path.is_file():
            raise InputError(f"{uri(path)}: no such file")
    return given


def _read(files: dict[str, Path], config: ImportConfig, rejected: RejectedRows) -> Published:
    """Usable rows of every split."""
    read = read_published_llara if config.layout == "llara" else read_published_json
    published = read(files, config, rejected)
    splits = published.splits
    for name, path in files.items():
        _refuse_empty(splits[name], path, rejected)
    if "train" not in splits:
        splits = {"train": [], "validation": []} | splits
    if "validation" not in splits:
        cut = len(splits["train"]) * 9 // 10
        if not cut:
            raise InputError(
                f"{uri(files['train'])}: has 1 usable row, expected at least 2; without a "
                "validation file the last tenth is taken"
            )
        splits["validation"] = splits["train"][cut:]
        splits["train"] = splits["train"][:cut]
        published = replace(published, validation_is_cut=True)
    for name in ("validation", "test"):
        splits[name] = _equally_many(splits[name], config, rejected)
    return replace(published, splits=splits)


def _refuse_empty(rows: Sequence[ImportedRow], path: Path, rejected: RejectedRows) -> None:
    if rows:
        return
    mine = [row for row in rejected.rows if row.file == uri(path)]
    if not mine:
        raise InputError(f"{uri(path)}: has no rows")
    first = f"{mine[0].file}:{mine[0].line}: {mine[0].problem}"
    raise InputError(f"{uri(path)}: all {len(mine)} rows are unusable; the first: {first}")


def _equally_many(
    rows: Sequence[ImportedRow], config: ImportConfig, rejected: RejectedRows
) -> list[ImportedRow]:
    """Rows with as many candidates as most rows have."""
    counts = Counter(len(row.candidates) for row in rows)
    expected = max(counts, key=counts.__getitem__, default=0)
    for row in rows:
        found = len(row.candidates)
        if found != expected:
            problem = f"{config.candidates_field} holds {found} titles, expected {expected}"
            row.source.reject(f"{problem} as in most rows", rejected)
    return [row for row in rows if len(row.candidates) == expected]


def _popularity(splits: dict[str, pd.DataFrame], num_items: int) -> np.ndarray:
    """Occurrences in training; without training rows in the test rows' histories, [num_items].

    Each user's longest history of the test rows counts, its last.
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


def _tables(published: Published, named_users: bool) -> dict[str, pd.DataFrame]:
    """The data set's tables by name: splits, items, and users if the source names them."""
    ids = {title: number for number, title in enumerate(published.titles)}
    splits = {name: _frame(published.splits[name], ids) for name in SPLITS}
    users = _number_named(splits) if named_users else None
    if users is None:
        _number(splits, published.validation_is_cut)
    _number_rows(splits)
    splits["train"] = splits["train"].drop(columns="candidates")
    items = pd.DataFrame(
        {
            "item_id": np.arange(len(ids)),
            "source_id": [published.ids.of(title) for title in ids],
            "title": list(ids),
            "popularity": _popularity(splits, len(ids)),
        }
    )
    return splits | {"items": items} | ({} if users is None else {"users": users})


def _counts(tables: dict[str, pd.DataFrame]) -> dict[str, int]:
    """Sequences, items, interactions in the sequences (first histories and targets), and rows."""
    rows = pd.concat([tables[name] for name in SPLITS if not tables[name].empty])
    first = rows.drop_duplicates("user_id")
    return {
        "users": len(first),
        "items": len(tables["items"]),
        "interactions": int(first["history"].map(len).sum()) + len(rows),
        **{name: len(tables[name]) for name in SPLITS},
    }


def _frame(rows: Sequence[ImportedRow], ids: dict[str, int]) -> pd.DataFrame:
    """Rows as numbers of items; new titles get the next ones."""

    def known(titles: Sequence[str]) -> list[int]:
        return [ids.setdefault(title, len(ids)) for title in titles]

    numbers = [
        (known(row.history), *known([row.target]), known(row.candidates), row.user) for row in rows
    ]
    return pd.DataFrame(numbers, columns=["history", "target", "candidates", "user_id"])


def _number(splits: dict[str, pd.DataFrame], validation_is_cut: bool) -> None:
    """Number users 0, 1, 2, …: a history that continues the previous row's is the same user's.

    Args:
        splits: rows by split; gets the column `user_id`.
        validation_is_cut: validation rows follow the training rows in one file, and their first
            user may be the last one there.
    """
    user, before = -1, None
    for name, frame in splits.items():
        users = []
        if not (validation_is_cut and name == "validation"):
            before = None
        for history, target in zip(frame["history"], frame["target"], strict=True):
            if before is None or list(history) not in (before, before[1:]):
                user += 1
            users.append(user)
            before = [*history, target]
        splits[name] = frame.assign(user_id=users)


def _number_named(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Number users in the order in which they appear.

    Returns:
        Columns user_id and source_id.
    """
    numbers: dict[str, int] = {}
    for name, frame in splits.items():
        users = [numbers.setdefault(user, len(numbers)) for user in frame["user_id"]]
        splits[name] = frame.assign(user_id=users)
    return pd.DataFrame({"user_id": list(numbers.values()), "source_id": list(numbers)})


def _number_rows(splits: dict[str, pd.DataFrame]) -> None:
    """Number rows instead of times."""
    number = 0
    for name, frame in splits.items():
        splits[name] = frame.assign(timestamp=np.arange(number, number + len(frame)))
        number += len(frame)
