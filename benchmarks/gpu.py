"""`raypo bench gpu` without its command line: what one short run on one GPU says.

`python benchmarks/gpu.py --output FOLDER [--device cpu --model tiny] [--minutes 9]`
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from raypo.bench.gpu import GpuSettings, bench_gpu
from raypo.errors import InputError


def report_progress(done: int, total: int, note: str = "") -> None:
    """Say which measurement begins."""
    print(f"{done} of {total} {note}", flush=True)


def main() -> None:
    """Measure, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--model", choices=["all", "tiny"], default="all")
    parser.add_argument("--minutes", type=float, default=9.0)
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: there is no GPU; --device cpu --model tiny tries the same")
    settings = GpuSettings.dry() if given.model == "tiny" else GpuSettings()
    device = torch.device(given.device)
    try:
        bench_gpu(given.output, settings, device, given.minutes, report_progress)
    except InputError as error:
        sys.exit(f"error: {error}")
    print((given.output / "gpu.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
