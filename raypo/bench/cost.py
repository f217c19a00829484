"""What runs cost by their own metrics, in core or GPU hours, and what other sizes would.

A training run says in every line of `metrics.jsonl` how long the step took and how many tokens a
second it made, and in `summary.json` how long the whole took; an evaluation says in
`evaluated.json` how many rows it answered in how long (ways that share engines share the seconds,
and each is told all of them). Devices are what the run had asked Ray for.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raypo.config import InputError
from raypo.io.files import read_json
from raypo.io.run_folder import read_metrics


@dataclass(frozen=True)
class RunCost:
    """One way of using a model in one run folder.

    Attributes:
        run: the folder's name. stage: sft, align, generate, constrained or likelihood.
        device: "core" or "GPU". devices: how many the run held.
        rows: users stepped on or answered for.
        tokens: that were computed, each distinct one once; None for answers.
        stepping_seconds: of optimiser steps alone. seconds: with start, reference log-probs and
            validation; the same as `stepping_seconds` where only one is known.
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
        """What the run cost."""
        return self.seconds * self.devices / 3600

    def projected(self, rows: int) -> tuple[float, float]:
        """Device hours of so many rows on the same devices.

        Returns:
            The least, steps alone; and the most, everything beside the steps growing with them
            (the start of workers and engines does not).
        """
        share = rows / self.rows * self.devices / 3600
        return share * self.stepping_seconds, share * self.seconds

    def row(self, rows: int | None) -> dict[str, object]:
        """Plain values for a table; `rows` adds the projection."""
        told: dict[str, object] = {
            "run": self.run,
            "stage": self.stage,
            "on": f"{self.devices:g} {self.device}{'s' if self.devices != 1 else ''}",
            "rows": self.rows,
            "rows/s": round(self.rows / self.seconds, 3),
            "tokens a row": None if self.tokens is None else round(self.tokens / self.rows),
            "tokens/s": None if self.tokens is None else round(self.tokens / self.stepping_seconds),
            "device hours": float(f"{self.device_hours:.3g}"),
        }
        if rows is not None:
            least, most = self.projected(rows)
            told[f"for {rows:,} rows"] = f"{least:.3g} to {most:.3g}"
        return told


def run_costs(folders: Sequence[Path]) -> list[RunCost]:
    """What each run cost; a folder of runs, such as a pipeline's, stands for all in it.

    Raises:
        InputError: no such folder, or none of a finished training or evaluation in it.
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
        yield from _answering_costs(run, config)


def _training_cost(run: Path, config: dict[str, Any]) -> Iterator[RunCost]:
    steps = [line for line in read_metrics(run) if "tokens_per_second" in line]
    if not steps:
        return
    cluster = config["cluster"]
    workers = cluster["workers"]
    most: int = workers["max"] if isinstance(workers, dict) else workers
    users = config["micro_batch_size"] * config["gradient_accumulation_steps"] * most
    # An elastic run holds what it was given; each step's line says how many that was.
    held = statistics.fmean(line.get("workers", most) for line in steps)
    stepping = sum(line["seconds"] for line in steps)
    summary = run / "summary.json"
    whole = read_json(summary).get("seconds", stepping) if summary.exists() else stepping
    device, each = _device(cluster["gpus_per_worker"], cluster["cpus_per_worker"])
    yield RunCost(
        run=run.name,
        stage="align" if "objective" in config else "sft",
        device=device,
        devices=held * each,
        rows=users * len(steps),
        tokens=sum(line["seconds"] * line["tokens_per_second"] for line in steps),
        stepping_seconds=stepping,
        # A resumed run's summary knows its last start alone.
        seconds=max(whole, stepping),
    )


def _answering_costs(run: Path, config: dict[str, Any]) -> Iterator[RunCost]:
    # Models of one call lie side by side and all tell of the whole call: the first will do.
    told = sorted([*run.glob("evaluated.json"), *run.glob("*/evaluated.json")])
    ways = read_json(told[0]).get("cost", {}) if told else {}
    for way, cost in ways.items():
        if not cost["answers"]:
            continue
        pool = config["scorer"] if way == "likelihood" else config["engine"]
        count = pool.get("workers") or pool["engines"] * pool["tensor_parallel"]
        gpus = pool["gpus_per_worker" if "workers" in pool else "gpus_per_engine"]
        device, each = _device(gpus, pool.get("cpus_per_engine", 1))
        yield RunCost(
            run=run.name,
            stage=way,
            device=device,
            devices=count * each,
            rows=cost["answers"],
            tokens=None,
            stepping_seconds=cost["seconds"],
            seconds=cost["seconds"],
        )


def _device(gpus: float, cpus: float) -> tuple[str, float]:
    return ("GPU", gpus) if gpus else ("core", cpus)
