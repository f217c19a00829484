"""Run by test_head_kernel.py; compiles the kernels for two generations of GPUs."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from raypo.policy import head_kernel

SHARED = {"largest_of": "*fp32", "row_stride": "i32", "columns": "i32", "scale": "fp32"}
KERNELS = {head_kernel._statistics: {"total_of": "*fp32"}, head_kernel._exponentials: {}}

for kernel, further in KERNELS.items():
    types = SHARED | further | {"logits": "*bf16", "block": "constexpr"}
    signature = {name: types[name] for name in kernel.arg_names}
    block = (kernel.arg_names.index("block"),)
    for architecture in (80, 90):
        source = ASTSource(kernel, signature, {block: head_kernel._COLUMNS})
        compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
        print("cubin" if compiled.asm["cubin"] else "nothing")
