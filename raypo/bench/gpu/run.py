"""The plan of `raypo bench gpu`: which measurements, in which order, within which time."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from raypo.bench.gpu import kernels, parity, scoring, steps
from raypo.bench.gpu.flops import measured_flops, peak_flops
from raypo.bench.gpu.policies import VARIANTS, RandomPolicy, free, make_policy
from raypo.bench.gpu.record import Record, Rows, machine
from raypo.bench.gpu.report import write_report
from raypo.io.progress import Progress, no_progress

_GPU_MODELS = ("random-llama-2-7b", "random-llama-3-8b", "random-qwen2.5-7b")


@dataclass(frozen=True)
class GpuSettings:
    """What to measure.

    Attributes:
        models: keys of `raypo.bench.model_configs.MODEL_CONFIGS`, for training steps.
        scored: the model whose scoring is measured.
        negatives: of each user; 0 is SFT.
        variants: of `raypo.bench.gpu.policies.VARIANTS`.
        is_compiled: whether compiled layers are tried, last and on the first model alone, since
            compiling can take minutes.
        users: in a micro-batch, side by side.
        most_users: where the search for the largest micro-batch stops.
        passes: users in a pass of the scorer.
        repeats: rounds that count.
        seed: of weights and users.
    """

    models: tuple[str, ...] = _GPU_MODELS
    scored: str = "random-qwen3-0.6b"
    negatives: tuple[int, ...] = (0, 15, 3, 7, 19)
    variants: tuple[str, ...] = tuple(name for name in VARIANTS if name != "packed_compiled")
    is_compiled: bool = True
    users: int = 8
    most_users: int = 256
    passes: tuple[int, ...] = (32, 128, 512)
    repeats: int = 3
    seed: int = 0

    @classmethod
    def dry(cls) -> GpuSettings:
        """The same measurements on a tiny model, for machines without a GPU."""
        return cls(
            models=("random-tiny",),
            scored="random-tiny",
            negatives=(0, 15, 3),
            variants=tuple(name for name in cls.variants if name != "packed_triton"),
            is_compiled=False,
            users=2,
            most_users=4,
            passes=(2, 4),
            repeats=1,
        )


@dataclass(frozen=True)
class _Plan:
    settings: GpuSettings
    device: torch.device
    record: Record

    def measurements(self) -> Iterator[str]:
        """Make all measurements that the record lacks, yielding each one's name before it."""
        yield from self._once("parity", "parity", self._parity)
        yield from self._once("products", "products", self._products)
        for name in self.settings.models:
            yield from self._of_model(name)
        yield from self._once("scoring", "scoring", self._scoring)
        if self.settings.is_compiled:
            yield from self._once("parity/compiled", "parity", self._compiled_parity)
            yield from self._once("step/compiled", "steps", self._compiled_step)

    def _once(self, name: str, kind: str, call: Callable[[], Rows]) -> Iterator[str]:
        if name not in self.record.measurements:
            yield name
            self.record.measure(name, kind, call)
            free(self.device)

    def _of_model(self, name: str) -> Iterator[str]:
        own = self.settings

        @functools.cache
        def policy() -> RandomPolicy:
            return make_policy(name, self.device, own.most_users, max(own.negatives), own.seed)

        for count in own.negatives:

            def step(count: int = count) -> Rows:
                return steps.step_rows(
                    policy(), count, own.variants, own.users, own.repeats, self._peak()
                )

            yield from self._once(f"{name}/step/{count}", "steps", step)
        most = max(own.negatives)
        yield from self._once(
            f"{name}/limits",
            "limits",
            lambda: steps.limit_rows(policy(), (0, most), own.most_users),
        )
        yield from self._once(
            f"{name}/kernels",
            "kernels",
            lambda: kernels.kernel_rows(policy(), own.users, min(15, most)),
        )
        policy.cache_clear()
        free(self.device)

    def _peak(self) -> float | None:
        return peak_flops(self.device)

    def _parity(self) -> Rows:
        return parity.parity_rows("random-tiny", self.device, self.settings.seed)

    def _compiled_parity(self) -> Rows:
        return parity.compiled_rows("random-tiny", self.device, self.settings.seed)

    def _compiled_step(self) -> Rows:
        own = self.settings
        policy = make_policy(own.models[0], self.device, own.users, max(own.negatives), own.seed)
        variants = ("packed_fused", "packed_compiled")
        return steps.step_rows(
            policy, min(15, max(own.negatives)), variants, own.users, own.repeats, self._peak()
        )

    def _products(self) -> Rows:
        size = 8192 if self.device.type == "cuda" else 512
        peak = self._peak()
        return [
            {
                "size": size,
                "tflops": measured_flops(self.device, size) / 1e12,
                "data_sheet_tflops": None if peak is None else peak / 1e12,
            }
        ]

    def _scoring(self) -> Rows:
        own = self.settings
        policy = make_policy(own.scored, self.device, max(own.passes), 19, own.seed)
        return scoring.scoring_rows(policy, 20, own.passes, own.repeats)


def bench_gpu(
    output: Path,
    settings: GpuSettings,
    device: torch.device,
    minutes: float,
    progress: Progress = no_progress,
) -> Record:
    """Measure what `output` lacks, until the time is used up; the same call then goes on.

    Args:
        output: folder of `gpu.json` and `gpu.md`, made if it is missing.
        settings: what to measure.
        device: where.
        minutes: after them no further measurement begins.
        progress: told the measurements' names.

    Raises:
        InputError: the folder has a record of another machine or of other settings.
    """
    output.mkdir(parents=True, exist_ok=True)
    head = machine(device) | {"settings": _plain(settings)}
    record = Record.open(output / "gpu.json", head)
    until = time.monotonic() + 60 * minutes
    total = 3 + len(settings.models) * (len(settings.negatives) + 2) + 2 * settings.is_compiled
    for name in _Plan(settings, device, record).measurements():
        write_report(record, output / "gpu.md", total)
        if time.monotonic() > until:
            return record
        progress(len(record.measurements), total, name)
    write_report(record, output / "gpu.md", total)
    progress(total, total, "")
    return record


def _plain(settings: GpuSettings) -> dict[str, object]:
    """Settings as JSON gives them back."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(settings).items()
    }
