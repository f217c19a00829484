"""Every shipped configuration parses, and mistakes in one are named."""

from pathlib import Path

import pytest

from raypo import config as configs
from raypo.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
STAGES = {
    "prepare": configs.PrepareConfig,
    "recommender": configs.RecommenderConfig,
    "sft": configs.SftConfig,
    "align": configs.AlignConfig,
    "evaluate": configs.EvaluateConfig,
    "pipeline": configs.PipelineConfig,
}


@pytest.mark.parametrize("stage", STAGES)
def test_job_configurations_parse_and_have_an_entry_point(stage):
    configs.load_config(STAGES[stage], ROOT / f"jobs/configs/{stage}.yaml")
    assert (ROOT / f"jobs/{stage}.py").exists()


def test_published_systems_parse():
    for name, stage in (("llara", "sft"), ("tallrec", "sft"), ("chatrec", "evaluate")):
        configs.load_config(STAGES[stage], ROOT / f"jobs/configs/{name}.yaml")


def test_search_and_engine_pool_parse():
    configs.load_config(configs.TuneConfig, ROOT / "tune/napo.yaml")
    configs.load_config(configs.EvaluateConfig, ROOT / "serve/engine_pool.yaml")


def test_a_dumped_configuration_reads_back(tmp_path):
    config = configs.load_config(configs.AlignConfig, ROOT / "jobs/configs/align.yaml")
    (tmp_path / "c.yaml").write_text(configs.dump_config(config))
    assert configs.load_config(configs.AlignConfig, tmp_path / "c.yaml") == config


def test_overrides_win_over_the_file_and_keep_their_type():
    config = configs.load_config(
        configs.AlignConfig,
        ROOT / "jobs/configs/align.yaml",
        ["optimiser.learning_rate=1e-4", "objective.rho=0", "cluster.workers=4"],
    )
    assert config.optimiser.learning_rate == 1e-4
    assert config.objective.options == {"rho": 0}
    assert config.users_per_step == 8 * 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["learning_rat=1"], "learning_rat: unknown key"),
        (["micro_batch=8"], "micro_batch: renamed; the setting is now 'micro_batch_size'"),
        (["rows=8"], "rows: renamed; the setting is now 'max_rows'"),
        (["validation.every=8"], "validation.every: renamed; the setting is now 'eval_steps'"),
        (
            ["optimiser.warmup_share=0"],
            "optimiser.warmup_share: renamed; the setting is now 'warmup_ratio'",
        ),
        (
            ["optimiser.lerning_rate=1"],
            "optimiser.lerning_rate: unknown key; did you mean 'learning_rate'?",
        ),
        (["cluster.workers=two"], "cluster.workers: Input should be a valid integer"),
        (["cluster.workers={min: 3, max: 2}"], "cluster.workers: min 3 is more than max 2"),
        (["cluster.workers={min: 3}"], "cluster.workers.max: required, not given"),
        (["nonsense"], "override 'nonsense': expected key=value"),
        (["data.x=1"], "data.x: data is a value, not a group"),
        (["policy.adapter=null"], "policy.adapter: alignment starts from an SFT adapter"),
        (["seed=-1"], "seed: "),
    ],
)
def test_a_wrong_setting_is_named(overrides, message):
    with pytest.raises(InputError) as caught:
        configs.load_config(configs.AlignConfig, ROOT / "jobs/configs/align.yaml", overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such configuration file"),
        ("a: [", "not valid YAML"),
        ("- 1", "expected a mapping"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    file = tmp_path / "c.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        configs.load_config(configs.SftConfig, file)
    assert str(file) in str(caught.value)
