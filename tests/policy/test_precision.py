"""`policy.dtype=auto`: bfloat16 where the hardware multiplies it, float32 elsewhere."""

import pytest
import torch

from raypo.config import EvaluateConfig, PolicyConfig, SftConfig
from raypo.policy import precision
from raypo.policy.precision import dtype_name, torch_dtype, with_dtype


@pytest.fixture(params=[True, False])
def multiplies_bfloat16(request, monkeypatch):
    monkeypatch.setattr(precision, "_cpu_multiplies_bfloat16", lambda: request.param)
    return request.param


def test_auto_follows_the_hardware(multiplies_bfloat16):
    assert dtype_name(PolicyConfig(), on_gpu=True) == "bfloat16"
    on_cpu = "bfloat16" if multiplies_bfloat16 else "float32"
    assert dtype_name(PolicyConfig(), on_gpu=False) == on_cpu


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_given_precision_is_kept(multiplies_bfloat16, dtype):
    for on_gpu in (True, False):
        assert dtype_name(PolicyConfig(dtype=dtype), on_gpu) == dtype


def test_a_stage_names_its_precision(multiplies_bfloat16, tmp_path):
    sft = SftConfig(data=tmp_path, output=tmp_path / "sft", policy={"lora": {"rank": 4}})
    chosen = with_dtype(sft, on_gpu=False)
    assert chosen.policy.dtype == ("bfloat16" if multiplies_bfloat16 else "float32")
    assert chosen.policy.lora.rank == 4
    assert sft.policy.dtype == "auto"
    evaluate = EvaluateConfig(data=tmp_path, output=tmp_path / "evaluate")
    assert with_dtype(evaluate, on_gpu=True).policy.dtype == "bfloat16"


def test_this_machine_has_an_answer():
    assert torch_dtype(PolicyConfig()) in (torch.float32, torch.bfloat16)
