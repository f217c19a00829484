"""Logs and titles to a prepared data set: sequences, splits, candidate sets.

The steps are read -> order -> split -> examples -> catalogue. The log is processed on disk, one
shard of its users at a time, so that a log of any size fits into memory. A step applies a function
to tasks, in this process or on Ray workers.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from raypo.config import PrepareConfig
from raypo.data.candidates import CandidateSampler
from raypo.data.examples import PART, PartTask, RowTask, join_parts, make_rows, order_part
from raypo.data.filters import kept_interactions
from raypo.data.item_texts import item_texts
from raypo.data.prepare_options import PrepareOptions, resolve_options
from raypo.data.readers import OTHER, LogReader, RejectedRows, log_reader, read_items
from raypo.data.readers.sources import Source, identify, release_memory, resolve_sources
from raypo.data.readers.times import AS_THEY_ARE, PER_SECOND, units_of_files
from raypo.data.shards import (
    OrderTask,
    ReadResult,
    ReadTask,
    ShardedLog,
    order_shard,
    read_into_shards,
)
from raypo.data.split import SPLITS, SplitPlan, make_split_plan
from raypo.data.tasks import RunTasks, TaskRunner, in_this_process
from raypo.data.titles import display_titles
from raypo.data.writing import (
    QUARANTINE,
    Audit,
    existing_dataset,
    write_dataset,
    write_parquet,
)
from raypo.errors import InputError
from raypo.io.files import value_hash
from raypo.io.progress import Progress, no_progress

_VERSION = 4  # raise it when the same inputs and options give another data set
_SHARD_BYTES = 8 << 20  # of a log's text; each worker holds a shard in memory
_MAX_SHARDS = 256


@dataclass(frozen=True)
class Inputs:
    """Files to prepare, and the identity of the resulting data set.

    Attributes:
        log: files of interactions. catalogue: files of items.
        hashes: name and sha256 of every file, for `dataset.json`.
        options: settings that affect the result.
        key: hash of hashes and options; the same key means the same data set.
    """

    log: Sequence[Source]
    catalogue: Sequence[Source]
    hashes: dict[str, list[dict[str, str]]]
    options: dict[str, Any]
    key: str


@dataclass(frozen=True)
class Workspace:
    """A temporary folder for the log's shards, and how many there are."""

    folder: Path
    shards: int


def prepare(
    config: PrepareConfig,
    progress: Progress = no_progress,
    run_tasks: RunTasks = in_this_process,
    audit: Audit | None = None,
) -> dict[str, Any]:
    """Prepare a data set, unless the folder already holds it.

    Args:
        config: what to prepare.
        progress: receives finished tasks.
        run_tasks: runs the steps' tasks; `raypo.orchestration.prepare.on_workers` uses Ray Data.
        audit: its result goes into `dataset.json`; None leaves it out.

    Returns:
        The content of `dataset.json`.

    Raises:
        InputError: unreadable or unusable inputs, more candidates than the catalogue allows, an
            empty split, or an output folder with other content.
    """
    options = resolve_options(config)
    inputs = _resolve_inputs(config)
    existing = existing_dataset(config.output, inputs.key)
    if existing is not None:
        return existing
    progress(0, 1, "reading items")
    rejected = RejectedRows(options.rejected)
    items = read_items(inputs.catalogue, rejected, options.item_columns)
    reader = log_reader(inputs.log, options.log_columns)
    runner = TaskRunner(run_tasks, progress)

    def fill(folder: Path) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="shards.") as name:
            work = Workspace(Path(name), _number_of_shards(inputs.log))
            read = _read(inputs.log, reader, items, options, work, runner)
            units = ["seconds"] * len(read)
            if reader.time_format == "numbers":
                names = [file.location for file in inputs.log]
                units = units_of_files(names, [one["units"] for one in read])
            log = _order(len(items), units, options, work, runner)
            plan = _split(log, options, runner)
            filled = _examples(log, plan, items, options, folder, runner)
            write_parquet(_catalogue(items, plan, options), folder / "items.parquet")
            counts = _counts(plan, read)
            if options.sampling != "uniform":
                counts["candidate_sets_filled_uniformly"] = filled
            counts |= _write_rejected(folder / QUARANTINE, rejected, read)
            periods = _periods(folder)
        return {
            "source": inputs.hashes,
            "options": inputs.options,
            "time_units": dict(Counter(units)) if reader.time_format == "numbers" else None,
            "seed": options.seed,
            "key": inputs.key,
            "counts": counts,
            "periods": periods,
        }

    return write_dataset(config.output, fill, audit, progress)


def dataset_key(config: PrepareConfig) -> str:
    """Hash of the content of the inputs and of the options."""
    return _resolve_inputs(config).key


def _resolve_inputs(config: PrepareConfig) -> Inputs:
    log, catalogue = resolve_sources(config.interactions), resolve_sources(config.items)
    hashes = {"interactions": identify(log), "items": identify(catalogue)}
    left_out = {"interactions", "items", "output", "workers", "paper"}
    if config.split_by != "cold-items":
        left_out.add("cold_share")  # data sets of other splits keep their keys
    if config.held_out == "every":
        left_out.add("held_out")
    if config.item_text is None:
        left_out.add("item_text")
    options = config.model_dump(mode="json", exclude=left_out)
    contents = {name: [file["sha256"] for file in files] for name, files in hashes.items()}
    return Inputs(log, catalogue, hashes, options, value_hash([_VERSION, contents, options]))


def _read(
    files: Sequence[Source],
    reader: LogReader,
    items: pd.DataFrame,
    options: PrepareOptions,
    work: Workspace,
    runner: TaskRunner,
) -> list[ReadResult]:
    """Read every file of the log into shards."""
    ids = work.folder / "items.parquet"
    pq.write_table(pa.table({"item": items["item"].tolist()}), ids)
    tasks = [
        ReadTask(
            number,
            source,
            reader,
            options.minimum_rating,
            options.tie_seed,
            ids,
            work.shards,
            work.folder,
            options.rejected,
        )
        for number, source in enumerate(files)
    ]
    return runner.run(read_into_shards, tasks, "reading")


def _number_of_shards(files: Sequence[Source]) -> int:
    size = sum(source.inflated for source in files)
    return min(_MAX_SHARDS, max(1, size // _SHARD_BYTES))


def _order(
    num_items: int,
    units: Sequence[str],
    options: PrepareOptions,
    work: Workspace,
    runner: TaskRunner,
) -> ShardedLog:
    """Sort every shard by user and time, and mark duplicates."""
    per_second = tuple(1.0 if unit == AS_THEY_ARE else PER_SECOND[unit] for unit in units)
    tasks = [
        OrderTask(number, work.folder, options.duplicates, per_second)
        for number in range(work.shards)
    ]
    return ShardedLog(work.folder, tuple(runner.run(order_shard, tasks, "sorting")), num_items)


def _split(log: ShardedLog, options: PrepareOptions, runner: TaskRunner) -> SplitPlan:
    """Decide which interactions are kept, and which are rows of which split."""
    runner.progress(0, 1, "splitting")
    kept = kept_interactions(log, options.filters)
    plan = make_split_plan(log, kept, options.split)
    release_memory()
    empty = [name for name in SPLITS if not plan.rows[name]]
    if empty:
        minimum = options.split.minimum_history
        raise InputError(
            f"{', '.join(options.interactions)}: no rows left for {', '.join(empty)}; every row "
            f"needs a user with {minimum} earlier interactions (minimum_history); "
            f"{plan.interactions} interactions of {plan.users} users remain"
        )
    return plan


def _examples(
    log: ShardedLog,
    plan: SplitPlan,
    items: pd.DataFrame,
    options: PrepareOptions,
    output: Path,
    runner: TaskRunner,
) -> int:
    """Write all rows with histories and candidates; count the sets filled up uniformly."""
    sampler = CandidateSampler(
        len(plan.popularity),
        options.candidates,
        options.sampling,
        plan.popularity,
        pd.factorize(items["category"])[0][plan.items >= 0],
        options.seed,
        plan.cold,
    )
    length = options.split.history_length
    tasks = [
        RowTask(number, log.folder, plan.items, length, sampler) for number in range(len(log.users))
    ]
    filled = sum(runner.run(make_rows, tasks, "histories and candidates"))
    parts = [
        PartTask(split, number, log.folder)
        for split in SPLITS
        for number in range(-(-plan.rows[split] // PART))
    ]
    written = runner.run(order_part, parts, "writing")
    for split in SPLITS:
        mine = [file for part, file in zip(parts, written, strict=True) if part.split == split]
        join_parts(mine, output / f"{split}.parquet")
    return filled


def _catalogue(items: pd.DataFrame, plan: SplitPlan, options: PrepareOptions) -> pd.DataFrame:
    """The data set's items, numbered, with the titles that prompts show."""
    items = items[plan.items >= 0]
    years = items["year"].tolist() if options.item_columns.year else None
    titles = display_titles(items["title"].tolist(), years, options.clean_titles)
    catalogue = pd.DataFrame(
        {
            "item_id": np.arange(len(items)),
            "source_id": items["item"].to_numpy(),
            "title": titles,
            "popularity": plan.popularity,
            "source_title": items["title"].to_numpy(),
        }
    )
    if options.item_text is not None:
        columns = {name: items[f"{OTHER}{name}"].tolist() for name in options.item_columns.others}
        catalogue["text"] = item_texts(options.item_text, titles, columns)
    return catalogue if plan.cold is None else catalogue.assign(cold=plan.cold)


def _periods(folder: Path) -> dict[str, list[int]]:
    """The first and the last time of each split's targets, from the files' statistics."""
    periods = {}
    for split in SPLITS:
        metadata = pq.read_metadata(folder / f"{split}.parquet")
        names = [metadata.schema.column(index).path for index in range(len(metadata.schema))]
        column = names.index("timestamp")
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        statistics = [group.column(column).statistics for group in groups]
        times = [(one.min, one.max) for one in statistics if one is not None and one.has_min_max]
        if times:
            first, last = zip(*times, strict=True)
            periods[split] = [int(min(first)), int(max(last))]
    return periods


def _counts(plan: SplitPlan, read: Sequence[ReadResult]) -> dict[str, int]:
    return {
        "users": plan.users,
        "items": len(plan.popularity),
        "interactions": plan.interactions,
        "interactions_read": sum(result["rows"] for result in read),
        **plan.rows,
        **({} if plan.cold is None else {"cold_items": int(plan.cold.sum())}),
    }


def _write_rejected(
    file: Path, of_items: RejectedRows, of_log: Sequence[ReadResult]
) -> dict[str, int]:
    """Write the rejected rows of the catalogue and of the log's files, and count them."""
    count = of_items.count + sum(result["rejected"] for result in of_log)
    if not count:
        return {}
    with file.open("w", encoding="utf-8") as stream:
        stream.write(of_items.drain())
        for result in of_log:
            with open(result["rejected_file"], encoding="utf-8") as lines:
                shutil.copyfileobj(lines, stream)
    return {"quarantined": count}
