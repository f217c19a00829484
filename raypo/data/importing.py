"""Published S-DPO/LLaRA files to a prepared data set, candidates as published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from raypo.config import ImportConfig, InputError
from raypo.config.paths import uri
from raypo.data.published_rows import (
    ImportedRow,
    PublishedRow,
    divided_candidates,
    named_titles,
    typed_rows,
    usable_rows,
)
from raypo.data.readers import RejectedRows
from raypo.data.readers.joined_titles import TitleDivider
from raypo.data.readers.json_rows import read_json_rows
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

_VERSION = 3  # raise it when the same files and options give another data set
# Empty splits have types too.
_SCHEMA = pa.schema(
    [
        ("history", pa.list_(pa.int64())),
        ("target", pa.int64()),
        ("candidates", pa.list_(pa.int64())),
        ("user_id", pa.int64()),
        ("timestamp", pa.int64()),
    ]
)


def import_published(
    config: ImportConfig, progress: Progress = no_progress, audit: Audit | None = None
) -> dict[str, Any]:
    """Import a published data set, unless the folder already holds it.

    Rows have a history, a candidate list and a target, all titles. Items get ids in the order in
    which they appear. The files name no users: a row whose history continues the previous row's
    belongs to the same user. They hold no times: rows are numbered instead.

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
    source = {name: {"file": path.name, "sha256": file_hash(path)} for name, path in files.items()}
    options = config.model_dump(
        mode="json", exclude={"train", "validation", "test", "output", "paper"}
    )
    key = value_hash([_VERSION, source, options])
    existing = existing_dataset(config.output, key)
    if existing is not None:
        return existing
    progress(0, 3, "reading")
    rejected = RejectedRows(config.malformed)
    rows = _read(files, config, rejected)
    ids: dict[str, int] = {}
    splits = {name: _frame(rows[name], ids) for name in SPLITS}
    count = len(splits["test"]["candidates"].iat[0])
    splits["train"] = splits["train"].drop(columns="candidates")
    _number(splits)
    items = pd.DataFrame(
        {
            "item_id": np.arange(len(ids)),
            "source_id": list(ids),
            "title": list(ids),
            "popularity": popularity(splits["train"], len(ids)),
        }
    )
    sequences, interactions = _sequences(splits)
    info: dict[str, Any] = {
        "source": source,
        "options": options | {"candidates": count, "timestamps": False, "users": "unknown"},
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
            schema = _SCHEMA.remove(_SCHEMA.get_field_index("candidates"))
            write_parquet(frame, folder / f"{name}.parquet", _SCHEMA if name != "train" else schema)
        write_parquet(items, folder / "items.parquet")
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
    for path in given.values():
        if not path.is_file():
            raise InputError(f"{uri(path)}: no such file")
    return given


def _read(
    files: dict[str, Path], config: ImportConfig, rejected: RejectedRows
) -> dict[str, list[ImportedRow]]:
    """Usable rows of every split.

    Titles may hold the separator, so a text of joined titles is divided by the titles that all
    files name.
    """
    typed = {
        name: list(typed_rows(read_json_rows(path, rejected), config, rejected))
        for name, path in files.items()
    }
    divider = _divider([row for rows in typed.values() for row in rows], config)
    splits = {
        name: list(usable_rows(rows, divider, config, rejected)) for name, rows in typed.items()
    }
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
    for name in ("validation", "test"):
        splits[name] = _equally_many(splits[name], config, rejected)
    return splits


def _divider(rows: Sequence[PublishedRow], config: ImportConfig) -> TitleDivider:
    known = named_titles(rows)
    known |= divided_candidates(rows, known, config.separator)
    return TitleDivider(known, config.separator)


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


def _frame(rows: Sequence[ImportedRow], ids: dict[str, int]) -> pd.DataFrame:
    """Rows as numbers of items; new titles get the next ones."""

    def known(titles: Sequence[str]) -> list[int]:
        return [ids.setdefault(title, len(ids)) for title in titles]

    numbers = [(known(row.history), *known([row.target]), known(row.candidates)) for row in rows]
    return pd.DataFrame(numbers, columns=["history", "target", "candidates"])


def _number(splits: dict[str, pd.DataFrame]) -> None:
    """Assign users by continued histories, and row numbers instead of times."""
    user, number = -1, 0
    for name, frame in splits.items():
        users, before = [], None
        for history, target in zip(frame["history"], frame["target"], strict=True):
            if before is None or list(history) not in (before, before[1:]):
                user += 1
            users.append(user)
            before = [*history, target]
        times = np.arange(number, number + len(frame))
        splits[name] = frame.assign(user_id=users, timestamp=times)
        number += len(frame)
