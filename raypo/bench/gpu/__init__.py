"""`raypo bench gpu`: what one short run on one GPU says of parity, speed and memory.

Needs no more than `raypo[core]`: models have random weights and well-known sizes, users are drawn.
Each measurement is a row of its own, recorded as soon as it is there, and not made again.
"""

from raypo.bench.gpu.run import GpuSettings, bench_gpu

__all__ = ["GpuSettings", "bench_gpu"]
