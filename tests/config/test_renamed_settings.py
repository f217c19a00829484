"""Every setting under its old name gives an error that gives the new name."""

from pathlib import Path

import pytest

from raypo import config as configs
from raypo.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
TRAINING = {
    "micro_batch": "micro_batch_size",
    "accumulation": "gradient_accumulation_steps",
    "rows": "max_rows",
    "optimiser.warmup_share": "warmup_ratio",
    "optimiser.gradient_clip": "max_grad_norm",
    "validation.every": "eval_steps",
    "validation.rows": "max_rows",
}
RENAMED = {
    "prepare": {"ties": "tie_break"},
    "sft": TRAINING,
    "align": TRAINING,
    "evaluate": {
        "rows": "max_rows",
        "orders": "num_permutations",
        "check_rows": "num_greedy_checks",
        "resamples": "num_bootstrap",
        "rule": "heuristic",
    },
    "tune": {
        "concurrent": "max_concurrent_trials",
        **{f"align.{old}": new for old, new in TRAINING.items()},
    },
    "pipeline": {
        "prepare.ties": "tie_break",
        **{f"sft.{old}": new for old, new in TRAINING.items()},
        **{f"align.{old}": new for old, new in TRAINING.items()},
        "evaluate.rows": "max_rows",
        "evaluate.orders": "num_permutations",
        "evaluate.check_rows": "num_greedy_checks",
        "evaluate.resamples": "num_bootstrap",
    },
}
STAGES = {
    "prepare": (configs.PrepareConfig, "jobs/configs/prepare.yaml"),
    "sft": (configs.SftConfig, "jobs/configs/sft.yaml"),
    "align": (configs.AlignConfig, "jobs/configs/align.yaml"),
    "evaluate": (configs.EvaluateConfig, "jobs/configs/evaluate.yaml"),
    "tune": (configs.TuneConfig, "tune/napo.yaml"),
    "pipeline": (configs.PipelineConfig, "jobs/configs/pipeline.yaml"),
}


@pytest.mark.parametrize(
    ("stage", "old", "new"),
    [(stage, old, new) for stage, names in RENAMED.items() for old, new in names.items()],
)
def test_an_old_name_gives_an_error_with_the_new_one(stage, old, new):
    model, file = STAGES[stage]
    with pytest.raises(InputError) as caught:
        configs.load_config(model, ROOT / file, [f"{old}=1"])
    assert str(caught.value) == f"{ROOT / file}: {old}: renamed; the setting is now {new!r}"


@pytest.mark.parametrize(
    "model",
    [
        configs.PrepareConfig,
        configs.OptimiserConfig,
        configs.ValidationConfig,
        configs.SftConfig,
        configs.AlignConfig,
        configs.EvaluateConfig,
        configs.TuneConfig,
    ],
)
def test_new_names_are_settings_and_old_ones_are_not(model):
    assert model.renamed
    assert {*model.renamed.values()} <= {*model.model_fields}
    assert not {*model.renamed} & {*model.model_fields}
