"""What training rows cost a rank: seconds until the first batch, and memory, by number of rows."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from raypo.io.files import file_hash, write_json
from raypo.io.progress import Progress, no_progress

_CHUNK = 200_000
_HISTORY, _CANDIDATES, _USERS_PER_STEP, _STEPS = 10, 20, 16, 200


@dataclass(frozen=True)
class SyntheticRows:
    """A prepared data set of random rows; a user has a hundred.

    Attributes:
        num_rows: training rows.
        num_items: items in the catalogue.
    """

    num_rows: int
    num_items: int = 50_000

    def write(self, folder: Path) -> None:
        """Write the data set into an empty folder."""
        generator = np.random.default_rng(0)
        with pq.ParquetWriter(folder / "train.parquet", self._table(generator, 1).schema) as writer:
            for start in range(0, self.num_rows, _CHUNK):
                writer.write_table(self._table(generator, min(_CHUNK, self.num_rows - start)))
        held_out = self._table(generator, 1000)
        candidates = generator.integers(self.num_items, size=(1000, _CANDIDATES))
        candidates.sort(axis=1)
        candidates += np.arange(_CANDIDATES)  # distinct
        candidates %= self.num_items
        candidates[:, 0] = held_out["target"].to_numpy()
        rows = [list(dict.fromkeys(row)) for row in candidates.tolist()]
        whole = [len(row) == _CANDIDATES for row in rows]
        held_out = held_out.append_column("candidates", pa.array(rows)).filter(pa.array(whole))
        items = pa.table(
            {
                "item_id": np.arange(self.num_items),
                "source_id": [str(item) for item in range(self.num_items)],
                "title": [f"Title {item}" for item in range(self.num_items)],
                "popularity": np.ones(self.num_items, dtype=np.int64),
            }
        )
        for name, table in (("validation", held_out), ("test", held_out), ("items", items)):
            pq.write_table(table, folder / f"{name}.parquet")
        files = {file.name: file_hash(file) for file in folder.glob("*.parquet")}
        options = {"candidates": _CANDIDATES}
        write_json(folder / "dataset.json", {"files": files, "options": options})

    def _table(self, generator: np.random.Generator, count: int) -> pa.Table:
        items = generator.integers(self.num_items, size=count * _HISTORY)
        offsets = np.arange(0, count * _HISTORY + 1, _HISTORY, dtype=np.int32)
        return pa.table(
            {
                "user_id": generator.integers(max(1, self.num_rows // 100), size=count),
                "history": pa.ListArray.from_arrays(offsets, items),
                "target": generator.integers(self.num_items, size=count),
                "timestamp": np.arange(count),
            }
        )


def bench_rows(
    counts: Sequence[int], folder: Path | None = None, progress: Progress = no_progress
) -> list[dict[str, object]]:
    """Measure each number of rows in fresh processes: with an empty cache, and with a filled one.

    Args:
        counts: numbers of training rows.
        folder: where a temporary folder for data set and cache is made; None takes the system's.
        progress: reports the sizes.
    """
    rows: list[dict[str, object]] = []
    for number, count in enumerate(counts):
        progress(number, len(counts), f"{count:,} rows")
        with tempfile.TemporaryDirectory(dir=folder) as name:
            data = Path(name) / "data"
            data.mkdir()
            SyntheticRows(count).write(data)
            first = _in_process(data, Path(name) / "cache")
            again = _in_process(data, Path(name) / "cache")
        rows.append(
            {
                "training rows": count,
                "seconds to the first batch, first time": round(first["start"], 2),
                "seconds to the first batch, later": round(again["start"], 2),
                "milliseconds a micro-batch": round(1000 * again["batch"], 2),
                "memory of the rank's own (MiB)": int(again["own"]) >> 20,
                "of it since the start (MiB)": int(again["own"] - again["before"]) >> 20,
            }
        )
    return rows


def _in_process(data: Path, cache: Path) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(data, cache, theirs))
    process.start()
    try:
        result: dict[str, float] = ours.recv()
    finally:
        process.join()
    return result


def _measure(data: Path, cache: Path, pipe: Any) -> None:
    """Draw the users of some steps as a rank does, without tokens and without a model."""
    import os

    os.environ["RAYPO_CACHE"] = str(cache)
    from raypo.data.candidates import TrainingCandidates
    from raypo.data.dataset import load_training_data
    from raypo.training.sampler import BatchSizes, make_batch_sampler

    before = _own_memory()
    started = time.perf_counter()
    dataset = load_training_data(data, 64, seed=0)
    sampler = make_batch_sampler(len(dataset.rows), None, BatchSizes(_USERS_PER_STEP), 1, seed=0)
    candidates = TrainingCandidates(dataset.rows, dataset.num_items, _CANDIDATES, seed=0)

    def draw(step: int) -> None:
        epoch, ((rows,),) = sampler.rank_batches(step, 0)
        for row in rows:
            dataset.rows.history(row)
            candidates.draw(row, epoch)
            dataset.rows.seen_by_user_of(row)

    draw(0)
    start = time.perf_counter() - started
    started = time.perf_counter()
    steps = min(_STEPS, sampler.total_steps - 1)
    for step in range(1, steps + 1):
        draw(step)
    batch = (time.perf_counter() - started) / steps
    pipe.send({"start": start, "batch": batch, "before": before, "own": _own_memory()})


def _own_memory() -> int:
    """Bytes of this process that are no pages of files, which the system takes back as it needs."""
    # Linux alone tells them apart.
    return sum(int(getattr(one, "anonymous", one.rss)) for one in psutil.Process().memory_maps())
