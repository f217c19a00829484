"""Preparing a made-up log of any size: rows per second and the most memory held."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as pa_csv

from raypo.config import PrepareConfig
from raypo.io.progress import Progress, no_progress

_CHUNK = 1_000_000
_SECONDS_BETWEEN_LOOKS = 1.0
_YEARS = 5 * 365 * 86400


def write_log(
    folder: Path, interactions: int, users: int, items: int, files: int, seed: int
) -> tuple[Path, Path]:
    """Write a log in several CSV files and its catalogue.

    Users are active to very different degrees (a lognormal), items popular by a power law; times
    are anywhere in five years, so that no file is in order.

    Returns:
        The log's files as a glob, and the catalogue.
    """
    generator = np.random.default_rng(seed)
    activity = np.cumsum(generator.lognormal(0, 1.2, users))
    popularity = np.cumsum(1 / np.arange(1, items + 1) ** 0.8)
    per_file = np.full(files, interactions // files)
    per_file[: interactions % files] += 1
    for number, count in enumerate(per_file.tolist()):
        path = folder / f"log-{number:03}.csv"
        with pa_csv.CSVWriter(path, _LOG) as writer:
            for size in _chunks(count):
                writer.write_table(
                    pa.table(
                        {
                            "user_id": _drawn(generator, activity, size),
                            "item_id": _drawn(generator, popularity, size),
                            "timestamp": 1_500_000_000 + generator.integers(_YEARS, size=size),
                        },
                        _LOG,
                    )
                )
    catalogue = folder / "items.csv"
    table = {"item_id": np.arange(items), "title": [f"Title {n}" for n in range(items)]}
    pa_csv.write_csv(pa.table(table), catalogue)
    return folder / "log-*.csv", catalogue


_LOG = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64()), ("timestamp", pa.int64())])


def _chunks(count: int) -> Iterator[int]:
    for start in range(0, count, _CHUNK):
        yield min(_CHUNK, count - start)


def _drawn(generator: np.random.Generator, cumulative: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(np.searchsorted(cumulative, generator.random(size) * cumulative[-1]))


def bench_data(
    interactions: int,
    users: int,
    items: int,
    workers: int,
    seed: int,
    folder: Path | None = None,
    progress: Progress = no_progress,
) -> list[dict[str, object]]:
    """Prepare a made-up log, audit included.

    Memory is the proportional set size of this process and all that it started, Ray's own
    processes and object store among them, looked at every second.

    Args:
        interactions: of the log.
        users: of the log.
        items: of the catalogue.
        workers: Ray workers; 0 for none.
        seed: of the log.
        folder: where the log and the data set go, which are removed afterwards; None takes the
            system's temporary folder.
        progress: told of the preparation's steps.
    """
    from raypo.orchestration.prepare import prepare

    with tempfile.TemporaryDirectory(dir=folder) as name:
        progress(0, 1, "making the log")
        log, catalogue = write_log(Path(name), interactions, users, items, max(1, workers), seed)
        size = sum(file.stat().st_size for file in Path(name).iterdir())
        config = PrepareConfig(
            interactions=(str(log),),
            items=(str(catalogue),),
            output=Path(name) / "prepared",
            workers=workers,
        )
        started = time.perf_counter()
        with _watched_memory() as most:
            info = prepare(config, progress)
        seconds = time.perf_counter() - started
    counts = info["counts"]
    return [
        {
            "interactions": interactions,
            "log MiB": size >> 20,
            "workers": workers,
            "rows": sum(counts[split] for split in ("train", "validation", "test")),
            "seconds": round(seconds, 1),
            "interactions/s": round(interactions / seconds),
            "peak MiB": most[0] >> 20,
        }
    ]


@contextmanager
def _watched_memory() -> Iterator[list[int]]:
    """The most bytes that this process and its children held, in a list of one."""
    most = [0]
    stopped = threading.Event()

    def look() -> None:
        while not stopped.wait(_SECONDS_BETWEEN_LOOKS):
            most[0] = max(most[0], _held())

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield most
    finally:
        stopped.set()
        watcher.join()


def _held() -> int:
    own = psutil.Process()
    held = 0
    for process in [own, *own.children(recursive=True)]:
        try:
            held += process.memory_full_info().pss
        except psutil.Error:  # ended meanwhile
            continue
    return held
