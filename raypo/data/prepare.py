"""Logs and titles to a prepared data set: sequences, splits, candidate sets.

The log goes through files on disk, a shard of its users at a time, so that one of any size fits
into memory; each step is a function over tasks, which runs in this process or on Ray's workers.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from raypo.config import InputError, PrepareConfig
from raypo.data.candidates import CandidateSampler
from raypo.data.examples import PART, PartTask, RowTask, join_parts, make_rows, order_part
from raypo.data.readers import LogReader, Malformed, log_reader, read_items
from raypo.data.readers.sources import Source, identify, release_memory, resolve_sources
from raypo.data.shards import OrderTask, ReadResult, ReadTask, order_shard, read_into_shards
from raypo.data.split import SPLITS, Plan, keep, make_plan
from raypo.data.titles import display_titles
from raypo.data.writing import QUARANTINE, existing_dataset, write_dataset, write_parquet
from raypo.io.files import value_hash
from raypo.io.progress import Progress, no_progress

_VERSION = 3  # raised whenever the same inputs and options come to give another data set
_SHARD_BYTES = 8 << 20  # of a log's text; a shard is held in memory by each worker
_MOST_SHARDS = 256

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")
# Applies a function to every task and gives the results, plain values, in the tasks' order.
Each = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]


def in_this_process(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
    """One task after the other, without Ray."""
    return map(function, tasks)


def prepare(
    config: PrepareConfig, progress: Progress = no_progress, each: Each = in_this_process
) -> dict[str, Any]:
    """Prepare a data set; one that the same inputs and options made is recognised.

    Args:
        config: what to prepare.
        progress: told of finished tasks.
        each: runs the steps' tasks; Ray Data's is `raypo.orchestration.prepare.on_workers`.

    Returns:
        What `dataset.json` holds.

    Raises:
        InputError: unreadable or malformed inputs, more candidates than the catalogue allows, an
            empty split, or an output folder that holds something else.
    """
    log, catalogue = resolve_sources(config.interactions), resolve_sources(config.items)
    source, options, key = _identity(config, log, catalogue)
    existing = existing_dataset(config.output, key)
    if existing is not None:
        return existing
    malformed = Malformed(config.malformed)
    progress(0, 1, "reading items")
    items = _items(config, catalogue, malformed)
    reader = _log_reader(config, log)

    def fill(folder: Path) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="shards.") as name:
            work = _Work(config, log, reader, items, Path(name), each, progress)
            counts, set_aside = work.write(folder)
            counts |= _quarantine(folder / QUARANTINE, malformed, set_aside)
        return {
            "source": source,
            "options": options,
            "seed": config.seed,
            "key": key,
            "counts": counts,
        }

    return write_dataset(config.output, fill, progress)


def _quarantine(file: Path, of_items: Malformed, of_log: Sequence[ReadResult]) -> dict[str, int]:
    """Write what was set aside of the catalogue and of the log's files; how many, if any."""
    count = of_items.count + sum(result["malformed"] for result in of_log)
    if not count:
        return {}
    with file.open("w", encoding="utf-8") as stream:
        stream.write(of_items.drain())
        for result in of_log:
            with open(result["set_aside"], encoding="utf-8") as lines:
                shutil.copyfileobj(lines, stream)
    return {"quarantined": count}


def dataset_key(config: PrepareConfig) -> str:
    """Hash of the content of the inputs and of the options: the same key, the same data set."""
    return _identity(config, resolve_sources(config.interactions), resolve_sources(config.items))[2]


def _identity(
    config: PrepareConfig, log: Sequence[Source], catalogue: Sequence[Source]
) -> tuple[dict[str, Any], dict[str, Any], str]:
    source = {"interactions": identify(log), "items": identify(catalogue)}
    left_out = {"interactions", "items", "output", "workers", "paper"}
    options = config.model_dump(mode="json", exclude=left_out)
    hashes = {name: [file["sha256"] for file in files] for name, files in source.items()}
    return source, options, value_hash([_VERSION, hashes, options])


def _items(config: PrepareConfig, sources: Sequence[Source], malformed: Malformed) -> pd.DataFrame:
    return read_items(
        sources,
        malformed,
        config.items_format,
        config.catalogue_item_field or config.item_field,
        config.title_field,
        config.year_field,
        config.category_field,
        with_category=config.sampling == "category",
    )


def _log_reader(config: PrepareConfig, sources: Sequence[Source]) -> LogReader:
    return log_reader(
        sources,
        config.interactions_format,
        config.user_field,
        config.item_field,
        config.time_field,
        config.rating_field,
        with_rating=config.minimum_rating is not None,
        time_format=config.time_format,
    )


class _Work:
    """The steps from a log's files to a data set's, in a folder of its own."""

    def __init__(
        self,
        config: PrepareConfig,
        log: Sequence[Source],
        reader: LogReader,
        items: pd.DataFrame,
        folder: Path,
        each: Each,
        progress: Progress,
    ) -> None:
        self._config = config
        self._log = log
        self._reader = reader
        self._items = items
        self._folder = folder
        self._each = each
        self._progress = progress
        size = sum(source.inflated for source in log)
        self._shards = min(_MOST_SHARDS, max(1, size // _SHARD_BYTES))

    def write(self, output: Path) -> tuple[dict[str, int], list[ReadResult]]:
        """Write the Parquet files into `output`; returns counts, and what came of each file."""
        read = self._read()
        tasks = [
            OrderTask(number, self._folder, self._config.duplicates)
            for number in range(self._shards)
        ]
        users = self._run(order_shard, tasks, "sorting")
        plan = self._plan(users)
        categories = pd.factorize(self._items["category"])[0][plan.items >= 0]
        filled = self._rows(plan, categories)
        self._join(plan, output)
        self._catalogue(plan, output)
        counts = {
            "users": plan.users,
            "items": len(plan.popularity),
            "interactions": plan.interactions,
            "interactions_read": sum(result["rows"] for result in read),
            **plan.rows,
        }
        if self._config.sampling != "uniform":
            counts["candidate_sets_filled_uniformly"] = filled
        return counts, read

    def _run(
        self, function: Callable[[TaskT], ResultT], tasks: Sequence[TaskT], what: str
    ) -> list[ResultT]:
        results: list[ResultT] = []
        self._progress(0, len(tasks), what)
        for result in self._each(function, tasks):
            results.append(result)
            self._progress(len(results), len(tasks), what)
        release_memory()
        return results

    def _read(self) -> list[ReadResult]:
        ids = self._folder / "items.parquet"
        pq.write_table(pa.table({"item": self._items["item"].tolist()}), ids)
        tasks = [
            ReadTask(
                number,
                source,
                self._reader,
                self._config.minimum_rating,
                self._config.seed if self._config.tie_break == "random" else None,
                ids,
                self._shards,
                self._folder,
                self._config.malformed,
            )
            for number, source in enumerate(self._log)
        ]
        return self._run(read_into_shards, tasks, "reading")

    def _plan(self, users: list[int]) -> Plan:
        self._progress(0, 1, "splitting")
        config = self._config
        kept = keep(
            self._folder,
            users,
            len(self._items),
            config.minimum_user_interactions,
            config.minimum_item_interactions,
            config.maximum_rows,
        )
        plan = make_plan(
            self._folder,
            users,
            kept,
            len(self._items),
            config.minimum_item_interactions > 0,
            config.minimum_history,
            config.split_by,
            config.split,
            config.history_length,
            config.seed,
        )
        release_memory()
        empty = [name for name in SPLITS if not plan.rows[name]]
        if empty:
            raise InputError(
                f"{', '.join(config.interactions)}: no rows left for {', '.join(empty)}; every row "
                f"needs a user with {config.minimum_history} earlier interactions "
                f"(minimum_history); {plan.interactions} interactions of {plan.users} users remain"
            )
        return plan

    def _rows(self, plan: Plan, categories: np.ndarray) -> int:
        config = self._config
        sampler = CandidateSampler(
            len(plan.popularity),
            config.candidates,
            config.sampling,
            plan.popularity,
            categories,
            config.seed,
        )
        tasks = [
            RowTask(number, self._folder, plan.items, config.history_length, sampler)
            for number in range(self._shards)
        ]
        return sum(self._run(make_rows, tasks, "histories and candidates"))

    def _join(self, plan: Plan, output: Path) -> None:
        tasks = [
            PartTask(split, number, self._folder)
            for split in SPLITS
            for number in range(-(-plan.rows[split] // PART))
        ]
        parts = self._run(order_part, tasks, "writing")
        for split in SPLITS:
            mine = [part for task, part in zip(tasks, parts, strict=True) if task.split == split]
            join_parts(mine, output / f"{split}.parquet")

    def _catalogue(self, plan: Plan, output: Path) -> None:
        items = self._items[plan.items >= 0]
        years = items["year"].tolist() if self._config.year_field else None
        catalogue = pd.DataFrame(
            {
                "item_id": np.arange(len(items)),
                "source_id": items["item"].to_numpy(),
                "title": display_titles(items["title"].tolist(), years, self._config.clean_titles),
                "popularity": plan.popularity,
                "source_title": items["title"].to_numpy(),
            }
        )
        write_parquet(catalogue, output / "items.parquet")
