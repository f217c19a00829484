"""Published S-DPO/LLaRA files to a prepared data set, candidates as published."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raypo.config import ImportConfig, InputError
from raypo.data.readers import RejectedRows
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

_VERSION = 2


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
    files = {"train": config.train, "validation": config.validation, "test": config.test}
    given = {name: path for name, path in files.items() if path is not None}
    for path in given.values():
        if not path.is_file():
            raise InputError(f"{path}: no such file")
    source = {name: {"file": path.name, "sha256": file_hash(path)} for name, path in given.items()}
    options = config.model_dump(
        mode="json", exclude={"train", "validation", "test", "output", "paper"}
    )
    key = value_hash([_VERSION, source, options])
    existing = existing_dataset(config.output, key)
    if existing is not None:
        return existing
    progress(0, 3, "reading")
    ids: dict[str, int] = {}
    rejected = RejectedRows(config.malformed)
    splits = {name: _frame(path, config, ids, rejected) for name, path in given.items()}
    if config.validation is None:
        cut = len(splits["train"]) * 9 // 10
        splits["validation"] = splits["train"].iloc[cut:].reset_index(drop=True)
        splits["train"] = splits["train"].iloc[:cut]
    splits = {name: splits[name] for name in SPLITS}
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


def _frame(
    path: Path, config: ImportConfig, ids: dict[str, int], rejected: RejectedRows
) -> pd.DataFrame:
    def known(titles: Sequence[str]) -> list[int]:
        return [ids.setdefault(title, len(ids)) for title in titles]

    rows = []
    for number, row in enumerate(_rows(path)):
        where = f"{path}: row {number}"
        history = _titles(row, config.history_field, config.separator, where)
        candidates = _titles(row, config.candidates_field, config.separator, where)
        target = row.get(config.target_field)
        if not isinstance(target, str):
            raise InputError(f"{where}: {config.target_field} is {target!r}, expected a title")
        problem = _problem(target.strip(), candidates, config)
        if problem:
            rejected.add(str(path), number, problem, json.dumps(row, ensure_ascii=False))
            continue
        rows.append((known(history), known([target.strip()])[0], known(candidates)))
    if not rows:
        raise InputError(f"{path}: has no rows")
    return pd.DataFrame(rows, columns=["history", "target", "candidates"])


def _problem(target: str, candidates: Sequence[str], config: ImportConfig) -> str:
    """Why a row cannot be evaluated; empty if it can."""
    if target not in candidates:
        return (
            f"{config.target_field} is {target!r}, expected one of its {len(candidates)} candidates"
        )
    twice = [title for title in candidates if candidates.count(title) > 1]
    if twice:
        return f"{config.candidates_field} holds {twice[0]!r} more than once"
    return ""


def _titles(row: dict[str, Any], field: str, separator: str, where: str) -> list[str]:
    value = row.get(field)
    titles = value.split(separator) if isinstance(value, str) else value
    if not isinstance(titles, list) or not all(isinstance(title, str) for title in titles):
        raise InputError(f"{where}: {field} is {value!r}, expected titles")
    titles = [title.strip() for title in titles]
    if not titles or not all(titles):
        raise InputError(f"{where}: {field} holds an empty title")
    return titles


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON array or of JSON lines, gzipped or not."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if text.lstrip().startswith("["):
        values = _parsed(text, f"{path}")
    else:
        lines = enumerate(text.splitlines(), start=1)
        values = [_parsed(line, f"{path}:{number}") for number, line in lines if line.strip()]
    for number, value in enumerate(values):
        if not isinstance(value, dict):
            raise InputError(f"{path}: row {number} is {type(value).__name__}, expected an object")
        yield value


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error})") from None


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
