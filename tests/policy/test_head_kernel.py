"""The LM head's Triton kernels, in Triton's interpreter and compiled for GPUs that are not here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from raypo.config import PolicyConfig
from raypo.errors import InputError
from raypo.policy.model import choose_head_kernel

from .models import lora_model

pytest.importorskip("triton")
FOLDER = Path(__file__).parent


def run(script: str, **environment: str) -> str:
    """A process of its own: Triton decides at its import whether it interprets."""
    command = [sys.executable, "-W", "ignore", str(FOLDER / script)]
    answer = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_log_probs_and_gradients_are_those_of_torch():
    lines = run("head_kernel_parity.py", TRITON_INTERPRET="1").split()
    assert lines == ["check", "float32", "bfloat16", "scored", "refused"]


def test_the_kernels_compile_for_gpus():
    assert run("head_kernel_compile.py").split() == ["cubin"] * 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_model_with_the_kernel_needs_a_gpu():
    model = lora_model("llama").get_base_model()
    choose_head_kernel(PolicyConfig(), model)
    with pytest.raises(InputError, match="triton needs a GPU, and there is none"):
        choose_head_kernel(PolicyConfig(head_kernel="triton"), model)
    assert not hasattr(model.get_output_embeddings(), "uses_kernel")
