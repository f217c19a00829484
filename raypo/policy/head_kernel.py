"""The LM head's softmax by Triton kernels, which read the logits twice and write them once.

By torch's own operations logits [S, V] in bfloat16 are copied to float32, and read or written about
ten times more. Where V is large that takes a GPU nearly as long as the head's matrix products.

Not chosen by itself: it has been compared with torch's operations in Triton's interpreter, and not
yet been timed on a GPU (`raypo bench gpu` does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from raypo.errors import InputError
from raypo.policy.head_softmax import HeadSoftmax, in_place_softmax, softmax_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_COLUMNS = 4096
# Below any logit, and yet finite: the difference of two of them is not NaN.
_LEAST = tl.constexpr(-1e30)


@triton.jit  # type: ignore[untyped-decorator]
def _statistics(logits, largest_of, total_of, row_stride, columns, scale, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """A row's largest scaled logit, and the sum of exponentials relative to it."""
    row = tl.program_id(0).to(tl.int64)
    largest = _LEAST
    total = 0.0
    for start in range(0, columns, block):
        column = start + tl.arange(0, block)
        mask = column < columns
        value = tl.load(logits + row * row_stride + column, mask=mask, other=-float("inf"))
        value = value.to(tl.float32) * scale
        larger = tl.maximum(largest, tl.max(value, 0))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(value - larger), 0)
        largest = larger
    tl.store(largest_of + row, largest)
    tl.store(total_of + row, total)


@triton.jit  # type: ignore[untyped-decorator]
def _exponentials(logits, largest_of, row_stride, columns, scale, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """Overwrites logits by exponentials relative to the row's largest one."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    mask = column < columns
    pointers = logits + row * row_stride + column
    value = tl.load(pointers, mask=mask, other=-float("inf")).to(tl.float32) * scale
    value = tl.exp(value - tl.load(largest_of + row))
    tl.store(pointers, value.to(logits.dtype.element_ty), mask=mask)


def fused_softmax(logits: Tensor, scale: float, source_of: Tensor, targets: Tensor) -> HeadSoftmax:
    """What `in_place_softmax` computes; `others` has the logits' precision and their memory."""
    predicted = (source_of, targets)
    chosen = logits[predicted].float() * scale
    logits[predicted] = logits.new_full((), -torch.inf)
    others_largest, others_total = _row_statistics(logits, scale)
    largest = others_largest.scatter_reduce(0, source_of, chosen, "amax")
    rows, columns = logits.shape
    grid = (rows, triton.cdiv(columns, _COLUMNS))
    _exponentials[grid](logits, largest, logits.stride(0), columns, scale, block=_COLUMNS)
    others_total *= (others_largest - largest).exp()
    return softmax_of(predicted, chosen, largest, logits, others_total)


def fused_logps(logits: Tensor, scale: float, source_of: Tensor, targets: Tensor) -> Tensor:
    """Log-probs [N] of the targets alone: the logits [S, V] are read once, and kept."""
    largest, total = _row_statistics(logits, scale)
    chosen = logits[source_of, targets].float() * scale
    return chosen - (largest + total.log())[source_of]


def _row_statistics(logits: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    rows, columns = logits.shape
    largest = torch.empty(rows, dtype=torch.float32, device=logits.device)
    total = torch.empty_like(largest)
    stride = logits.stride(0)
    _statistics[(rows,)](logits, largest, total, stride, columns, scale, block=_COLUMNS)
    return largest, total


def use_head_kernel(causal_lm: PreTrainedModel, device: torch.device) -> None:
    """Let the LM head's log-probs be computed by these kernels.

    Args:
        causal_lm: the decoder, on any device yet.
        device: where it will run.

    Raises:
        InputError: there is no such device.
        RuntimeError: their result is not that of torch's own operations on this device.
    """
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("policy.head_kernel: triton needs a GPU, and there is none")
    head: Any = causal_lm.get_output_embeddings()
    check_head_kernel(device, head.weight.dtype)
    head.uses_kernel = True


def check_head_kernel(device: torch.device, dtype: torch.dtype) -> None:
    """Compare with torch's operations, on rows with one target and with several.

    Raises:
        RuntimeError: they differ.
    """
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(8, 2 * _COLUMNS + 5, generator=generator)).to(device, dtype)
    source_of = torch.tensor([0, 0, 0, 1, 2, 3, 4, 5, 6, 7], device=device)
    targets = torch.tensor([3, 3, 9, 0, 8196, 4095, 4096, 1, 2, 5], device=device)
    plain = in_place_softmax(logits.clone(), 0.5, source_of, targets)
    alone = fused_logps(logits, 0.5, source_of, targets)
    fused = fused_softmax(logits.clone(), 0.5, source_of, targets)
    pairs = {
        "log-probs": (plain.logps, fused.logps, 1e-4),
        "log-probs without gradient": (plain.logps, alone, 1e-4),
        "complements": (plain.complements, fused.complements, 1e-4),
        "totals": (plain.total, fused.total, 1e-4),
        "probabilities": (plain.others, fused.others.float(), 2 * torch.finfo(dtype).eps),
    }
    for name, (expected, found, tolerance) in pairs.items():
        if not torch.allclose(expected, found, rtol=tolerance, atol=1e-6):
            raise RuntimeError(
                f"the Triton kernel of the LM head gives other {name} than torch on {device}; "
                "leave policy.head_kernel at torch"
            )
