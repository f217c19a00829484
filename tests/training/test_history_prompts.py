"""Policies whose prompts are the history alone train and align, with negatives of the catalogue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypo.config import AlignConfig, SftConfig, parse_config
from raypo.errors import InputError
from raypo.io.run_folder import read_metrics
from raypo.training.job import check_inputs
from raypo.training.local import train_locally
from tests.training.inputs import settings

pytestmark = pytest.mark.slow


def test_sft_and_alignment_read_the_history_alone(
    inputs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    data, recommender, _ = inputs
    values = settings(data, tmp_path / "sft")
    values["policy"] |= {"prompt": "history"}
    train_locally(parse_config(SftConfig, values, "test"))
    adapter = tmp_path / "sft" / "adapter"
    kept = json.loads((adapter / "prompt.json").read_text())
    assert "{candidates}" not in kept["template"] and "{history}" in kept["template"]
    values = settings(data, tmp_path / "aligned")
    values["policy"] |= {"adapter": adapter}
    values |= {
        "objective": {"name": "napo"},
        "recommender": recommender,
        "negatives": 7,
        "negatives_from": "catalogue",
        "negative_sampling": {"popular": 1, "uniform": 1},
    }
    train_locally(parse_config(AlignConfig, values, "test"))
    metrics = read_metrics(tmp_path / "aligned")
    assert len(metrics) > 1 and all(
        line["loss"] == line["loss"] for line in metrics if "loss" in line
    )
    aligned = json.loads((tmp_path / "aligned" / "adapter" / "prompt.json").read_text())
    assert aligned["template"] == kept["template"]


@pytest.mark.parametrize("hints", ["rank", "order"])
def test_hints_that_stand_in_a_list_need_one(
    inputs: tuple[Path, Path, Path], tmp_path: Path, hints: str
) -> None:
    values = settings(inputs[0], tmp_path / "sft")
    values["policy"] |= {"prompt": "history", "hints": hints, "hints_recommender": ["popularity"]}
    with pytest.raises(InputError, match="stand in the list of candidates"):
        check_inputs(parse_config(SftConfig, values, "test"))
