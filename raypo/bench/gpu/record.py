"""The record of a run: one JSON file, written after every measurement and read before each."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from raypo.bench.gpu.steps import problem_of
from raypo.errors import InputError
from raypo.io.files import read_json, write_json

Rows = list[dict[str, Any]]


@dataclass
class Record:
    """What was measured, by the measurement's name.

    Attributes:
        file: where it is kept.
        head: the machine, versions and settings, which all measurements share.
        measurements: name -> kind, rows, seconds and, where it failed, the problem.
    """

    file: Path
    head: dict[str, Any]
    measurements: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, file: Path, head: Mapping[str, Any]) -> Record:
        """The record in a file, or a new one.

        Raises:
            InputError: the file is of another machine or of other settings.
        """
        record = cls(file, dict(head))
        if not file.exists():
            return record
        kept = read_json(file)
        other = [key for key, value in record.head.items() if kept["head"].get(key) != value]
        if other:
            raise InputError(
                f"{file}: was measured with another {', '.join(other)}; choose another output, or "
                "remove it to measure anew"
            )
        record.measurements = kept["measurements"]
        return record

    def measure(self, name: str, kind: str, call: Callable[[], Rows]) -> None:
        """Make a measurement unless it is there, and keep it; a failed one is kept as failed."""
        if name in self.measurements:
            return
        started = time.perf_counter()
        kept: dict[str, Any] = {"kind": kind, "rows": []}
        try:
            kept["rows"] = call()
        except Exception as error:
            # Whatever one measurement meets, the others are worth their time.
            kept["problem"] = problem_of(error)
        kept["seconds"] = time.perf_counter() - started
        self.measurements[name] = kept
        write_json(self.file, {"head": self.head, "measurements": self.measurements})

    def rows(self, kind: str) -> Rows:
        """All rows of a kind, in the order of the measurements."""
        return [
            row
            for measurement in self.measurements.values()
            if measurement["kind"] == kind
            for row in measurement["rows"]
        ]


def machine(device: torch.device) -> dict[str, Any]:
    """The device, and the versions that figures depend on."""
    import transformers

    is_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else f"CPU, {platform.machine()}",
        "memory_gib": (
            round(torch.cuda.get_device_properties(device).total_memory / 2**30) if is_gpu else None
        ),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if is_gpu else None,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
