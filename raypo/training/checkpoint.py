"""Checkpoints: everything a run needs to go on as if it had not stopped.

A folder with `adapter/` (PEFT's own format), `optimiser.safetensors` (float32 weights and AdamW's
moments by parameter name, independent of the number of workers and the ZeRO stage) and
`state.json` (step, objective's statistics, best validation). Nothing in it is pickled.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from raypo.config import InputError
from raypo.io.files import read_json, write_json
from raypo.policy.adapters import save_adapter
from raypo.training.engine import Engine


@dataclass
class TrainingState:
    """Where a run is.

    Attributes:
        step: optimiser steps taken; with the plan and the seeds this is the sampler's position.
        objective: the objective's moving statistics.
        best: best validation HitRatio@1 so far, or None before the first validation.
        best_step: the step it was seen at.
    """

    step: int = 0
    objective: dict[str, Any] = field(default_factory=dict)
    best: float | None = None
    best_step: int | None = None


def write_checkpoint(
    folder: Path, engine: Engine, tensors: dict[str, Any], state: TrainingState
) -> None:
    """Write a checkpoint; one worker does it, with what `engine.optimiser_state()` gave."""
    weights = {name: value for name, value in tensors.items() if "/" not in name}
    with _storage_errors(folder):
        save_adapter(engine.policy.model, folder / "adapter", weights)
        save_file(tensors, folder / "optimiser.safetensors")
        write_json(folder / "state.json", asdict(state))


@contextlib.contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    """A full disk that safetensors meets comes as what it is."""
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(folder)) from error


def newest_whole(folders: Sequence[Path]) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that can be read, and what is wrong with newer ones.

    Args:
        folders: checkpoints, newest first.
    """
    problems: list[str] = []
    for folder in folders:
        problem = _damage(folder)
        if problem is None:
            return folder, problems
        problems.append(problem)
    return None, problems


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files; None where they are whole."""
    try:
        values = read_json(folder / "state.json")
        TrainingState(**values)
        for file in (
            folder / "optimiser.safetensors",
            folder / "adapter/adapter_model.safetensors",
        ):
            with safe_open(file, "pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118  not a dict
                    tensors.get_slice(key).get_shape()
    except (InputError, TypeError, OSError, SafetensorError) as error:
        return f"{folder}: {error}"
    return None


def read_checkpoint(folder: Path, engine: Engine) -> TrainingState:
    """Put a checkpoint's weights and moments into `engine`; where the run was.

    Raises:
        InputError: a file of the checkpoint is missing or damaged.
    """
    values = read_json(folder / "state.json")
    try:
        tensors = load_file(folder / "optimiser.safetensors")
    except Exception as error:
        raise InputError(f"{folder}/optimiser.safetensors: cannot be read ({error})") from error
    engine.load_optimiser_state(tensors)
    return TrainingState(**values)
