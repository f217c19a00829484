"""Where a step's milliseconds go, by kind of kernel."""

from __future__ import annotations

from typing import Any

from torch.profiler import ProfilerActivity, profile

from raypo.bench.gpu.policies import RandomPolicy
from raypo.bench.measure import synchronise

# The first kind whose part is in a kernel's name.
_KINDS = {
    "attention": ("flex", "flash", "fmha", "attention", "sdpa"),
    "matrix products": ("gemm", "matmul", "addmm", "::mm", "nvjet", "cutlass", "cublas", "bmm"),
    "copies and casts": ("copy", "memcpy", "memset", "::to", "cat"),
    "softmax and sums": ("softmax", "reduce", "logsumexp", "::sum", "amax", "norm"),
    "indexing": ("index", "gather", "scatter", "embedding"),
    "element-wise": ("elementwise", "::mul", "::add", "silu", "exp", "triton", "vectorized"),
}


def kernel_rows(policy: RandomPolicy, users: int, negatives: int) -> list[dict[str, Any]]:
    """Milliseconds and share of each kind of kernel in one step, and of waiting.

    Args:
        policy: what to profile.
        users: in the micro-batch.
        negatives: of each.
    """
    step = policy.step("packed_fused", users, negatives)
    step()
    is_gpu = policy.device.type == "cuda"
    activities = [ProfilerActivity.CUDA] if is_gpu else []
    with profile(activities=[ProfilerActivity.CPU, *activities]) as profiler:
        step()
        synchronise(policy.device)
    spent = dict.fromkeys([*_KINDS, "other"], 0.0)
    for event in profiler.key_averages():
        own = event.self_device_time_total if is_gpu else event.self_cpu_time_total
        spent[_kind(event.key)] += own / 1000
    total = sum(spent.values())
    return [
        {
            "model": policy.name,
            "negatives": negatives,
            "users": users,
            "kernels": kind,
            "milliseconds": each,
            "share": each / total if total else 0.0,
        }
        for kind, each in spent.items()
    ]


def _kind(kernel: str) -> str:
    name = kernel.lower()
    return next((kind for kind, parts in _KINDS.items() if any(p in name for p in parts)), "other")
