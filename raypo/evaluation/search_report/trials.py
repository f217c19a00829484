"""Trials of a search: settings, scores and collapses, and the file that holds them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from raypo.config.paths import local_path, uri
from raypo.errors import InputError
from raypo.io.files import read_json, write_json
from raypo.io.run_folder import read_metrics

SCORE = "validation/HitRatio@1"
Status = Literal["running", "finished", "stopped", "failed"]
SettingValue = bool | int | float | str | None


@dataclass(frozen=True)
class Point:
    """One validation.

    Attributes:
        step: optimiser steps before it.
        hit_ratio: HitRatio@1 on the validation rows.
        loss: mean training loss of the steps since the previous validation.
    """

    step: int
    hit_ratio: float
    loss: float


@dataclass(frozen=True)
class Collapse:
    """A fall of HitRatio@1 while the loss falls too.

    Attributes:
        best: the validation with the highest HitRatio@1, the first of equals.
        end: the last validation.
    """

    best: Point
    end: Point


@dataclass(frozen=True)
class Trial:
    """One trial of a search.

    Attributes:
        number: from 0, in the order of proposals.
        settings: values by dotted key of AlignConfig.
        output: its run folder.
        status: a trial that the scheduler `stopped` keeps its score and checkpoints.
        error: why it failed.
        metrics: lines of its `metrics.jsonl`, as far as it came.
    """

    number: int
    settings: Mapping[str, SettingValue]
    output: Path
    status: Status = "running"
    error: str | None = None
    metrics: Sequence[Mapping[str, Any]] = ()

    @property
    def ended(self) -> bool:
        """Whether the trial is not to be run any further."""
        return self.status != "running"

    @property
    def points(self) -> list[Point]:
        """Its validations, in order."""
        points: list[Point] = []
        losses: list[float] = []
        for line in self.metrics:
            losses.append(line["loss"])
            if SCORE in line:
                points.append(Point(line["step"], line[SCORE], sum(losses) / len(losses)))
                losses = []
        return points

    @property
    def best(self) -> Point | None:
        """The validation with the highest HitRatio@1, the first of equals."""
        return max(self.points, key=lambda point: (point.hit_ratio, -point.step), default=None)

    @property
    def score(self) -> float | None:
        """Best HitRatio@1 over its checkpoints; None before the first."""
        return None if self.best is None else self.best.hit_ratio


def read_trial_metrics(trial: Trial) -> Trial:
    """Return the trial with the metrics that its run folder holds now."""
    try:
        return replace(trial, metrics=read_metrics(trial.output))
    except json.JSONDecodeError:  # a stopped trial's worker is writing a line
        return trial


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the highest score that did not fail, the first of equals."""
    scored = [trial for trial in trials if trial.score is not None and trial.status != "failed"]
    return max(scored, key=lambda trial: (trial.score, -trial.number), default=None)


def find_collapse(points: Sequence[Point], num_rows: int) -> Collapse | None:
    """Find a fall of HitRatio@1 while the loss keeps falling, as DynamicPO describes it.

    From the best validation to the last one, HitRatio@1 must have fallen by at least a quarter and
    by at least two standard errors of the best value, below which it may be noise. The loss must
    have fallen as well.

    Args:
        points: validations in order.
        num_rows: validation rows.

    Returns:
        The collapse, or None.
    """
    if not points:
        return None
    best = max(points, key=lambda point: (point.hit_ratio, -point.step))
    end = points[-1]
    fall = best.hit_ratio - end.hit_ratio
    noise = 2 * standard_error(best.hit_ratio, num_rows)
    if fall <= 0 or fall < max(best.hit_ratio / 4, noise) or end.loss >= best.loss:
        return None
    return Collapse(best, end)


def standard_error(hit_ratio: float, num_rows: int) -> float:
    """Binomial standard error of a hit ratio over `num_rows` rows."""
    return math.sqrt(hit_ratio * (1 - hit_ratio) / num_rows)


def format_value(value: SettingValue) -> str:
    """Format a setting's value for tables and pages: floats with three digits."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def short_names(keys: Sequence[str]) -> list[str]:
    """Shorten dotted keys to their last parts where these are unique."""
    last = [key.split(".")[-1] for key in keys]
    return [name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)]


def write_trials(file: Path, trials: Sequence[Trial], num_rows: int) -> dict[str, Any]:
    """Write `trials.json` atomically.

    Args:
        file: its path.
        trials: in order, with their metrics.
        num_rows: validation rows.

    Returns:
        The content: `best`, and `trials` with a row each.
    """
    best = best_trial(trials)
    content = {
        "best": None if best is None else _row(best, num_rows),
        "trials": [_row(trial, num_rows) for trial in trials],
    }
    write_json(file, content)
    return content


def read_trials(file: Path) -> list[Trial]:
    """Read `trials.json`, and the metrics of each trial from its run folder.

    Returns:
        The trials so far; none if there is no file.

    Raises:
        InputError: the file is not what `write_trials` writes.
    """
    if not file.exists():
        return []
    try:
        return [
            read_trial_metrics(
                Trial(
                    row["number"],
                    row["settings"],
                    local_path(row["output"]),
                    row["status"],
                    row["error"],
                )
            )
            for row in read_json(file)["trials"]
        ]
    except (KeyError, TypeError) as error:
        raise InputError(f"{file}: not a list of trials ({error!r})") from None


def _row(trial: Trial, num_rows: int) -> dict[str, Any]:
    points, best = trial.points, trial.best
    collapse = find_collapse(points, num_rows)
    return {
        "number": trial.number,
        "settings": dict(trial.settings),
        "status": trial.status,
        SCORE: trial.score,
        "best_step": None if best is None else best.step,
        "steps": trial.metrics[-1]["step"] if trial.metrics else 0,
        "loss": points[-1].loss if points else None,
        "collapse": None if collapse is None else asdict(collapse),
        "error": trial.error,
        "output": uri(trial.output),
    }
