"""Checkpoints: everything that a run needs to resume exactly.

A checkpoint is a folder with `adapter/` (PEFT's own format), `optimiser.safetensors` (float32
weights and AdamW's moments by parameter name, independent of the number of ranks and the ZeRO
stage) and `state.json` (step, objective's statistics, best validation), with self-play also the
scores of the current round. Nothing in it is pickled.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from raypo.errors import InputError
from raypo.io.files import read_json, write_json
from raypo.policy.adapters import save_adapter
from raypo.policy.projector import save_projector
from raypo.policy.prompt_record import PromptRecord, write_prompt_record
from raypo.training.engine import Engine
from raypo.training.optimizer_state import PROJECTOR

logger = logging.getLogger("raypo")


@dataclass
class TrainingState:
    """Progress of a run.

    Attributes:
        step: optimiser steps taken, which is also the sampler's position.
        objective: the objective's moving statistics.
        best: best validation HitRatio@1 so far, or None before the first validation.
        best_step: step of the best validation.
    """

    step: int = 0
    objective: dict[str, Any] = field(default_factory=dict)
    best: float | None = None
    best_step: int | None = None


def write_checkpoint(
    folder: Path,
    engine: Engine,
    tensors: dict[str, Tensor],
    state: TrainingState,
    prompt: PromptRecord | None = None,
    further: Mapping[str, dict[str, Tensor]] | None = None,
) -> None:
    """Write a checkpoint. One rank does it.

    Args:
        folder: existing folder to write into.
        engine: holds the policy.
        tensors: result of `engine.optimiser_state()`, which all ranks take part in.
        state: progress of the run.
        prompt: what the policy's prompts are made from, kept beside the adapter.
        further: tensors of safetensors files, by the files' names.
    """
    weights = {name: value for name, value in tensors.items() if "/" not in name}
    projector = {
        name.removeprefix(PROJECTOR): weights.pop(name)
        for name in list(weights)
        if name.startswith(PROJECTOR)
    }
    with _storage_errors(folder):
        save_adapter(engine.policy.model, folder / "adapter", weights)
        if projector:
            save_projector(folder / "adapter", projector)
        if prompt is not None:
            write_prompt_record(folder / "adapter", prompt)
        save_file(tensors, folder / "optimiser.safetensors")
        for name, content in (further or {}).items():
            save_file(content, folder / name)
        write_json(folder / "state.json", asdict(state))


@contextlib.contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    """Raise safetensors' operating system errors, such as a full disk, as OSError."""
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(folder)) from error


def newest_valid_checkpoint(folders: Sequence[Path]) -> tuple[Path | None, list[str]]:
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


def warn_about_damage(problems: Sequence[str], resumed: Path | None) -> None:
    """Warn about damaged checkpoints.

    Args:
        problems: what is wrong with each.
        resumed: checkpoint that the run resumes from instead; None is the start.
    """
    for problem in problems:
        logger.warning("damaged checkpoint %s; going on from %s", problem, resumed or "the start")


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files; None where all can be read."""
    try:
        values = read_json(folder / "state.json")
        TrainingState(**values)
        for file in (
            folder / "optimiser.safetensors",
            folder / "adapter/adapter_model.safetensors",
            *folder.glob("*.safetensors"),
        ):
            with safe_open(file, "pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118  not a dict
                    tensors.get_slice(key).get_shape()
    except (InputError, TypeError, OSError, SafetensorError) as error:
        return f"{folder}: {error}"
    return None


def read_checkpoint(folder: Path, engine: Engine) -> TrainingState:
    """Load a checkpoint's weights and moments into `engine`; returns the run's progress.

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
