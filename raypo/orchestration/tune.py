"""Searching alignment settings with Ray Tune; every trial is an ordinary alignment run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ray.tune

from raypo.config import AlignConfig, InputError, TuneConfig, dump_config, parse_config
from raypo.orchestration.cluster import connect, quieten
from raypo.orchestration.relay import relayed, teller
from raypo.orchestration.train import train
from raypo.runs import (
    Progress,
    no_progress,
    open_run,
    read_json,
    value_hash,
    write_json,
    write_text,
)
from raypo.training.job import check_inputs
from raypo.training.loop import SCORE


def tune(config: TuneConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """Search; the best trial is the one with the best validation HitRatio@1, not the lowest loss.

    Writes `trials.json` (every trial's settings, score and run folder) and `best.yaml`, a file that
    `raypo align --config` takes. Finished trials are recognised when the same search runs again.

    Returns:
        Content of `trials.json`.

    Raises:
        InputError: a key of the space is no setting of alignment, or a value is not allowed.
    """
    summary = config.output / "trials.json"
    base = config.align.model_dump(mode="json")
    _check_space(config, base)
    check_inputs(config.align)
    open_run(config.output, config)
    if summary.exists():
        return dict(read_json(summary))
    connect()
    with relayed(progress) as board:
        results = _tuner(config, base, board).fit()
    failed = [result.error for result in results if result.error is not None]
    if len(failed) == len(results):
        raise RuntimeError(f"every trial failed; the first with: {failed[0]}")
    return _write(config, [result for result in results if result.error is None], base)


def _tuner(config: TuneConfig, base: dict[str, Any], board: str) -> ray.tune.Tuner:
    return ray.tune.Tuner(
        # The workers of a trial's alignment take the cores; the trial only waits for them, and must
        # not hold a part of what they need. Ray wants it to hold something: a mebibyte of memory.
        ray.tune.with_resources(_trial, {"CPU": 0, "memory": 1 << 20}),
        param_space={
            "settings": _search_space(config),
            "base": base,
            "folder": str(config.output / "trials"),
        },
        tune_config=ray.tune.TuneConfig(
            metric=SCORE,
            mode="max",
            num_samples=config.trials if config.sampler == "uniform" else 1,
            max_concurrent_trials=config.concurrent,
        ),
        run_config=ray.tune.RunConfig(
            name="search",
            storage_path=str(config.output),
            verbose=0,
            callbacks=[_Count(_number_of_trials(config), board)],
        ),
    )


def _trial(config: dict[str, Any]) -> None:
    """One trial: align with these settings in a folder named after them."""
    quieten()
    output = Path(config["folder"]) / value_hash(config["settings"])[:10]
    values = _with(config["base"], config["settings"]) | {"output": str(output)}
    summary = train(parse_config(AlignConfig, values, source="trial"))
    ray.tune.report(
        {SCORE: summary[SCORE], "output": str(output), "best_step": summary["best_step"]}
    )


def _search_space(config: TuneConfig) -> dict[str, Any]:
    if config.sampler == "grid":
        return {key: ray.tune.grid_search(list(values)) for key, values in config.space.items()}
    return {key: ray.tune.uniform(*values) for key, values in config.space.items()}


def _check_space(config: TuneConfig, base: dict[str, Any]) -> None:
    for key, values in config.space.items():
        if config.sampler == "uniform" and len(values) != 2:
            raise InputError(f"space.{key}: sampler uniform takes (low, high), got {list(values)}")
        if not values:
            raise InputError(f"space.{key}: no values")
        for value in values:
            parse_config(AlignConfig, _with(base, {key: value}), source=f"space.{key}")


def _with(base: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """`base` with dotted keys set; nothing in `base` changes."""
    values = dict(base)
    for key, value in settings.items():
        *parents, last = key.split(".")
        inner = values
        for parent in parents:
            inner[parent] = dict(inner.get(parent) or {})
            inner = inner[parent]
        inner[last] = value
    return values


def _write(config: TuneConfig, results: list[Any], base: dict[str, Any]) -> dict[str, Any]:
    trials = [
        {
            "settings": result.config["settings"],
            SCORE: result.metrics[SCORE],
            "best_step": result.metrics["best_step"],
            "output": result.metrics["output"],
        }
        for result in results
    ]
    trials.sort(key=lambda trial: (-trial[SCORE], trial["output"]))
    best = _with(base, trials[0]["settings"]) | {"output": str(config.output / "best")}
    write_text(
        config.output / "best.yaml", dump_config(parse_config(AlignConfig, best, source="best"))
    )
    write_json(config.output / "trials.json", {"best": trials[0], "trials": trials})
    return dict(read_json(config.output / "trials.json"))


def _number_of_trials(config: TuneConfig) -> int:
    if config.sampler == "uniform":
        return config.trials
    return math.prod(len(values) for values in config.space.values())


class _Count(ray.tune.Callback):  # type: ignore[misc]
    """Tells how many trials have ended. Tune pickles it, so it knows the board by name alone."""

    def __init__(self, total: int, board: str) -> None:
        self._total = total
        self._board = board
        self._ended = 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._ended += 1
        teller(self._board)(self._ended, self._total, "trials")

    on_trial_error = on_trial_complete
