"""Writing a prepared data set: all of it or nothing, with its audit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from raypo.audit import audit
from raypo.config import InputError
from raypo.data.dataset import load_dataset
from raypo.io.files import file_hash, read_json, write_json
from raypo.io.progress import Progress, no_progress

SPLITS = ("train", "validation", "test")
QUARANTINE = "quarantine.jsonl"
_FILES = tuple(f"{name}.parquet" for name in (*SPLITS, "items"))
# Beyond it the audit takes whole users by lot: it holds what it looks at in memory.
AUDITED_ROWS = 200_000


def existing_dataset(folder: Path, key: str) -> dict[str, Any] | None:
    """What `dataset.json` of a data set of this key holds; None where the folder is free.

    Raises:
        InputError: the folder holds something else, or the data set is not whole.
    """
    if (folder / "dataset.json").exists():
        info: Any = read_json(folder / "dataset.json")
        if not isinstance(info, dict) or info.get("key") != key:
            raise InputError(
                f"{folder}: holds a data set of other inputs or options; choose another folder"
            )
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise InputError(f"{folder}: {missing[0]} is missing; remove the folder and try again")
        return info
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: not empty and not a prepared data set; choose another folder")
    return None


def write_dataset(
    folder: Path,
    fill: Callable[[Path], dict[str, Any]],
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Let `fill` write all files into a folder beside, audit them, and put it into its place.

    Args:
        folder: of the data set; it must be free.
        fill: writes the Parquet files into the folder it is given, with `quarantine.jsonl` where
            rows were set aside, and returns what `dataset.json` is to hold.
        progress: told of the audit.

    Returns:
        What `dataset.json` holds: also the files' hashes and the audit.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        temporary = Path(name) / "data"
        temporary.mkdir()
        info = fill(temporary)
        files = sorted(temporary.glob("*.parquet"))
        info["files"] = {file.name: file_hash(file) for file in files}
        write_json(temporary / "dataset.json", info)
        info["audit"] = audit(load_dataset(temporary, AUDITED_ROWS), progress).as_json()
        write_json(temporary / "dataset.json", info)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    return info


def write_parquet(frame: pd.DataFrame, file: Path) -> None:
    """Write a table without what pandas would add to its schema."""
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(table, file, compression="zstd")
