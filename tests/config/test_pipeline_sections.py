"""The sections of a pipeline's configuration are checked as their stages' settings."""

from pathlib import Path

import pytest

from raypo import config as configs
from raypo.config.pipeline import SCALES, scale_config
from raypo.errors import InputError

FILE = Path(__file__).resolve().parents[2] / "jobs/configs/pipeline.yaml"
SECTIONS = {
    "prepare": (configs.PrepareSettings, configs.PrepareConfig),
    "recommender": (configs.RecommenderSettings, configs.RecommenderConfig),
    "sft": (configs.TrainingSettings, configs.SftConfig),
    "align": (configs.AlignSettings, configs.AlignConfig),
    "evaluate": (configs.EvaluateSettings, configs.EvaluateConfig),
}


def error_of(*overrides):
    with pytest.raises(InputError) as caught:
        configs.load_config(configs.PipelineConfig, FILE, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "sft.optimiser.lerning_rate=1",
            "sft.optimiser.lerning_rate: unknown key; did you mean 'learning_rate'?",
        ),
        ("prepare.titel_field=x", "prepare.titel_field: unknown key; did you mean 'title_field'?"),
        ("recommender.max_epoch=1", "recommender.max_epoch: unknown key; did you mean"),
        ("align.negative=1", "align.negative: unknown key; did you mean 'negatives'?"),
        ("align.policy.lora.ranks=1", "align.policy.lora.ranks: unknown key; did you mean 'rank'?"),
        ("evaluate.engine.engine=1", "evaluate.engine.engine: unknown key; did you mean"),
        ("sft.negatives=3", "sft.negatives: unknown key"),
        ("sft.epochs=none", "sft.epochs: Input should be a valid integer"),
        ("align.reference=later", "align.reference: Input should be 'precomputed' or 'on-the-fly'"),
        (
            "align.cluster.workers={min: 3, max: 2}",
            "align.cluster.workers: min 3 is more than max 2",
        ),
        (
            "align.objective={rho: 1, options: {rho: 2}}",
            "align.objective.rho: also given as objective.options.rho",
        ),
        ("align.objective={name: napo, margin: x}", "align.objective: give a preset's `name`"),
        ("evaluate=3", "evaluate: Input should be a valid dictionary"),
        ("seeed=3", "seeed: unknown key; did you mean 'seed'?"),
    ],
)
def test_a_wrong_setting_of_a_section_is_named_when_it_is_read(override, message):
    assert error_of(override).startswith(f"{FILE}: {message}")


@pytest.mark.parametrize(
    "key",
    [
        "prepare.output",
        "recommender.data",
        "recommender.output",
        "recommender.seed",
        "sft.data",
        "sft.output",
        "sft.seed",
        "sft.policy.model",
        "sft.policy.adapter",
        "align.data",
        "align.output",
        "align.seed",
        "align.policy.model",
        "align.policy.adapter",
        "align.recommender",
        "evaluate.data",
        "evaluate.output",
        "evaluate.policy.model",
        "evaluate.policy.adapter",
        "evaluate.adapters",
        "evaluate.recommender",
        "evaluate.heuristic",
    ],
)
def test_a_section_cannot_have_what_the_pipeline_sets(key):
    message = f"{FILE}: {key}: the pipeline sets this itself; leave it out"
    assert error_of(f"{key}=x") == message


@pytest.mark.parametrize("section", SECTIONS)
def test_a_stage_has_its_sections_settings_and_what_the_pipeline_sets(section):
    settings, stage = SECTIONS[section]
    assert configs.PipelineConfig.model_fields[section].annotation is settings
    assert {*stage.model_fields} - {*settings.model_fields} == settings.set_by_pipeline


def test_several_mistakes_are_all_named():
    error = error_of("sft.epoch=1", "align.negatives=0")
    assert "sft.epoch: unknown key" in error and "align.negatives: " in error


def test_the_data_are_built_in_or_the_users_own():
    with pytest.raises(InputError, match=r"prepare\.interactions: required, not given"):
        configs.parse_config(configs.PipelineConfig, {"output": "o"}, "test")
    builtin = "builtin_data=movielens-100k"
    assert "prepare.interactions: the pipeline sets this itself with builtin_data" in error_of(
        builtin
    )


@pytest.mark.parametrize("scale", SCALES)
def test_built_in_pipelines_parse_and_read_back_from_what_they_dump(scale, tmp_path):
    config = scale_config(scale, tmp_path / "run", seed=3)
    assert config.seed == 3 and config.output == tmp_path / "run"
    (tmp_path / "c.yaml").write_text(configs.dump_config(config))
    assert configs.load_config(configs.PipelineConfig, tmp_path / "c.yaml") == config
