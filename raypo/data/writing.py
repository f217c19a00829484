"""Writing a prepared data set completely or not at all, with its audit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from raypo.data.dataset import Dataset, load_dataset
from raypo.data.split import SPLITS
from raypo.errors import InputError
from raypo.io.files import file_hash, folder_beside, read_json, write_json
from raypo.io.progress import Progress, no_progress

QUARANTINE = "quarantine.jsonl"
_FILES = tuple(f"{name}.parquet" for name in (*SPLITS, "items"))
# The audit runs in memory: a larger data set is audited on the rows of randomly drawn users.
AUDITED_ROWS = 200_000
# An audit of a data set, as `dataset.json` holds it: `raypo.audit.audit_summary`.
Audit = Callable[[Dataset, Progress], dict[str, Any]]


def existing_dataset(folder: Path, key: str) -> dict[str, Any] | None:
    """The content of `dataset.json` of a data set with this key; None if the folder is free.

    Raises:
        InputError: the folder has other content, or the data set is incomplete.
    """
    try:
        exists = (folder / "dataset.json").exists()
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    if exists:
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
    audit: Audit | None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write all files into a temporary folder, audit them, and rename the folder.

    Args:
        folder: of the data set; it must be free.
        fill: writes the Parquet files into the folder it is given, with `quarantine.jsonl` if rows
            were rejected, and returns the content of `dataset.json`.
        audit: its result is added to `dataset.json`; None leaves it out.
        progress: receives the audit's progress.

    Returns:
        The content of `dataset.json`, with the files' hashes and the audit.
    """
    with folder_beside(folder) as parent:
        temporary = parent / "data"
        temporary.mkdir()
        info = fill(temporary)
        files = sorted(temporary.glob("*.parquet"))
        info["files"] = {file.name: file_hash(file) for file in files}
        write_json(temporary / "dataset.json", info)
        if audit is not None:
            try:
                info["audit"] = audit(load_dataset(temporary, AUDITED_ROWS), progress)
            except InputError as error:  # the temporary folder would be named, which is removed
                raise InputError(str(error).replace(str(temporary), str(folder))) from None
            write_json(temporary / "dataset.json", info)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    return info


def write_parquet(frame: pd.DataFrame, file: Path, schema: pa.Schema | None = None) -> None:
    """Write a table without pandas' own schema metadata, its types by `schema` if given."""
    table = pa.Table.from_pandas(frame, schema, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(table, file, compression="zstd")
