"""Core or GPU hours of finished runs, from their own metrics, and projections to other sizes.

A training run writes seconds and tokens per second of every step to `metrics.jsonl`, and its total
time to `summary.json`. An evaluation writes rows and seconds of each mode to `evaluated.json`;
modes that share engines share the seconds, and each reports all of them. Devices are those that the
run requested from Ray.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raypo.errors import InputError
from raypo.io.files import read_json
from raypo.io.run_folder import read_metrics


@dataclass(frozen=True)
class RunCost:
    """Cost of one training run, or of one mode of an evaluation.

    Attributes:
        run: name of the run folder.
        stage: sft, align, generate, constrained or likelihood.
        device: "core" or "GPU".
        devices: number of devices that the run held.
        rows: users trained on, each epoch counted, or answered for.
        tokens: tokens computed, each distinct one once; None for evaluations.
        stepping_seconds: seconds of optimiser steps alone.
        seconds: seconds with start, reference log-probs and validation; `stepping_seconds` where
            only one is known.
    """

    run: str
    stage: str
    device: str
    devices: float
    rows: int
    tokens: float | None
    stepping_seconds: float
    seconds: float

    @property
    def device_hours(self) -> float:
        """Devices times hours."""
        return self.seconds * self.devices / 3600

    def projected(self, rows: int) -> tuple[float, float]:
        """Device hours of another number of rows on the same devices.

        Returns:
            A lower bound, steps alone, and an upper bound, as if everything else grew with the
            rows too (the start of workers and engines does not).
        """
        scale = rows / self.rows * self.devices / 3600
        return scale * self.stepping_seconds, scale * self.seconds

    def row(self, rows: int | None) -> dict[str, object]:
        """Plain values for a table; `rows` adds the projection."""
        values: dict[str, object] = {
            "run": self.run,
            "stage": self.stage,
            "devices": f"{self.devices:g} {self.device}{'s' if self.devices != 1 else ''}",
            "rows": self.rows,
            "rows/s": round(self.rows / self.seconds, 3),
            "tokens/row": None if self.tokens is None else round(self.tokens / self.rows),
            "tokens/s": None if self.tokens is None else round(self.tokens / self.stepping_seconds),
            "device hours": float(f"{self.device_hours:.3g}"),
        }
        if rows is not None:
            least, most = self.projected(rows)
            values[f"device hours for {rows:,} rows"] = f"{least:.3g} to {most:.3g}"
        return values


def run_costs(folders: Sequence[Path]) -> list[RunCost]:
    """Cost of each run.

    Args:
        folders: run folders, or folders of run folders such as a pipeline's output.

    Raises:
        InputError: a folder does not exist, or holds no training or evaluation with metrics.
    """
    costs = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        found = [cost for run in _runs_in(folder) for cost in _costs_of(run)]
        if not found:
            raise InputError(
                f"{folder}: expected runs of sft, align or evaluate that took a step or answered "
                "a row (metrics.jsonl with tokens_per_second, or evaluated.json with cost)"
            )
        costs += found
    return costs


def _runs_in(folder: Path) -> Iterator[Path]:
    if (folder / "config.yaml").exists():
        yield folder
        return
    yield from sorted(file.parent for file in folder.glob("*/config.yaml"))


def _costs_of(run: Path) -> Iterator[RunCost]:
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    if "micro_batch_size" in config and "cluster" in config:
        yield from _training_cost(run, config)
    elif "scorer" in config:
        yield from _evaluation_costs(run, config)


def _training_cost(run: Path, config: dict[str, Any]) -> Iterator[RunCost]:
    steps = [line for line in read_metrics(run) if "tokens_per_second" in line]
    if not steps:
        return
    cluster = config["cluster"]
    workers = cluster["workers"]
    max_workers: int = workers["max"] if isinstance(workers, dict) else workers
    users = config["micro_batch_size"] * config["gradient_accumulation_steps"] * max_workers
    # The number of workers of an elastic run changes; each step's metrics name it.
    active_workers = statistics.fmean(line.get("workers", max_workers) for line in steps)
    stepping = sum(line["seconds"] for line in steps)
    summary = run / "summary.json"
    total = read_json(summary).get("seconds", stepping) if summary.exists() else stepping
    device, per_worker = _device(cluster["gpus_per_worker"], cluster["cpus_per_worker"])
    yield RunCost(
        run=run.name,
        stage="align" if "objective" in config else "sft",
        device=device,
        devices=active_workers * per_worker,
        rows=users * len(steps),
        tokens=sum(line["seconds"] * line["tokens_per_second"] for line in steps),
        stepping_seconds=stepping,
        # The summary of a resumed run covers only the time since it was resumed.
        seconds=max(total, stepping),
    )


def _evaluation_costs(run: Path, config: dict[str, Any]) -> Iterator[RunCost]:
    # The files of all models of an evaluation hold the cost of the whole: one is enough.
    files = sorted([*run.glob("evaluated.json"), *run.glob("*/evaluated.json")])
    modes = read_json(files[0]).get("cost", {}) if files else {}
    for mode, cost in modes.items():
        if not cost["answers"]:
            continue
        pool = config["scorer"] if mode == "likelihood" else config["engine"]
        count = pool.get("workers") or pool["engines"] * pool["tensor_parallel"]
        gpus = pool["gpus_per_worker" if "workers" in pool else "gpus_per_engine"]
        device, per_engine = _device(gpus, pool.get("cpus_per_engine", 1))
        yield RunCost(
            run=run.name,
            stage=mode,
            device=device,
            devices=count * per_engine,
            rows=cost["answers"],
            tokens=None,
            stepping_seconds=cost["seconds"],
            seconds=cost["seconds"],
        )


def _device(gpus: float, cpus: float) -> tuple[str, float]:
    return ("GPU", gpus) if gpus else ("core", cpus)
