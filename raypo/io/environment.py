"""Environment variables that libraries read when they are imported."""

from __future__ import annotations

import os


def set_deepspeed_accelerator() -> None:
    """Name the CPU as DeepSpeed's device on machines without a GPU.

    Call it before transformers or DeepSpeed is imported: transformers imports DeepSpeed, which
    warns when it has to guess.
    """
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
