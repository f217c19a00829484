"""Cost of preparing a synthetic log of any size: interactions per second and peak memory."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as pa_csv

from raypo.config import PrepareConfig
from raypo.io.progress import Progress, no_progress

_CHUNK = 1_000_000
_SECONDS_BETWEEN_SAMPLES = 1.0
_FIRST_TIMESTAMP = 1_500_000_000
_SECONDS = 5 * 365 * 86400
_SCHEMA = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64()), ("timestamp", pa.int64())])


@dataclass(frozen=True)
class SyntheticLog:
    """Size of a synthetic log.

    Attributes:
        num_interactions: rows of the log, over all its files.
        num_users: distinct users to draw from.
        num_items: items of the catalogue.
        num_files: CSV files of the log.
        seed: seed of every draw.
    """

    num_interactions: int
    num_users: int
    num_items: int
    num_files: int
    seed: int

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write the log in several CSV files, and its catalogue.

        Users' activity is lognormal and items' popularity follows a power law. Times are uniform
        over five years, so that no file is in order.

        Returns:
            A glob pattern of the log's files, and the catalogue.
        """
        generator = np.random.default_rng(self.seed)
        activity = np.cumsum(generator.lognormal(0, 1.2, self.num_users))
        popularity = np.cumsum(1 / np.arange(1, self.num_items + 1) ** 0.8)
        per_file = np.full(self.num_files, self.num_interactions // self.num_files)
        per_file[: self.num_interactions % self.num_files] += 1
        for number, count in enumerate(per_file.tolist()):
            with pa_csv.CSVWriter(folder / f"log-{number:03}.csv", _SCHEMA) as writer:
                for size in _chunks(count):
                    columns = {
                        "user_id": _sample(generator, activity, size),
                        "item_id": _sample(generator, popularity, size),
                        "timestamp": _FIRST_TIMESTAMP + generator.integers(_SECONDS, size=size),
                    }
                    writer.write_table(pa.table(columns, _SCHEMA))
        catalogue = folder / "items.csv"
        titles = [f"Title {item}" for item in range(self.num_items)]
        pa_csv.write_csv(
            pa.table({"item_id": np.arange(self.num_items), "title": titles}), catalogue
        )
        return folder / "log-*.csv", catalogue


def _chunks(count: int) -> Iterator[int]:
    for start in range(0, count, _CHUNK):
        yield min(_CHUNK, count - start)


def _sample(generator: np.random.Generator, cumulative: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(np.searchsorted(cumulative, generator.random(size) * cumulative[-1]))


def bench_data(
    log: SyntheticLog,
    workers: int,
    folder: Path | None = None,
    progress: Progress = no_progress,
) -> list[dict[str, object]]:
    """Prepare a synthetic log, audit included.

    Memory is the proportional set size of this process and all its children, sampled every second.
    Ray's own processes and object store are included.

    Args:
        log: size of the log.
        workers: Ray workers; 0 for none.
        folder: where a temporary folder for log and data set is made; None takes the system's.
        progress: reports the steps of the preparation.
    """
    from raypo.orchestration.prepare import prepare

    with tempfile.TemporaryDirectory(dir=folder) as name:
        progress(0, 1, "writing the log")
        files, catalogue = log.write(Path(name))
        size = sum(file.stat().st_size for file in Path(name).iterdir())
        config = PrepareConfig(
            interactions=(str(files),),
            items=(str(catalogue),),
            output=Path(name) / "prepared",
            workers=workers,
        )
        started = time.perf_counter()
        with _peak_memory() as peak:
            info = prepare(config, progress)
        seconds = time.perf_counter() - started
    counts = info["counts"]
    return [
        {
            "interactions": log.num_interactions,
            "log size (MiB)": size >> 20,
            "Ray workers": workers,
            "examples": sum(counts[split] for split in ("train", "validation", "test")),
            "seconds": round(seconds, 1),
            "interactions/s": round(log.num_interactions / seconds),
            "peak memory (MiB)": peak[0] >> 20,
        }
    ]


@contextmanager
def _peak_memory() -> Iterator[list[int]]:
    """Peak bytes of this process and its children so far, in a list of one."""
    peak = [0]
    stopped = threading.Event()

    def sample() -> None:
        while not stopped.wait(_SECONDS_BETWEEN_SAMPLES):
            peak[0] = max(peak[0], _memory())

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        stopped.set()
        sampler.join()


def _memory() -> int:
    parent = psutil.Process()
    total = 0
    for process in [parent, *parent.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # the process has ended
            continue
    return total
