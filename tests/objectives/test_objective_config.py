"""An objective in the configuration: flat where it is written, checked before anything runs."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from raypo.cli.main import app
from raypo.config import AlignConfig, parse_config
from raypo.config.objective import PARTS
from raypo.errors import InputError
from raypo.objectives import build_objective, composition
from raypo.training.objective import make_objective

ROOT = Path(__file__).parents[2]


def align_config(objective, tmp_path):
    values = {
        "data": str(tmp_path),
        "output": str(tmp_path / "out"),
        "policy": {"model": "tiny-random", "adapter": str(tmp_path)},
        "objective": objective,
    }
    return parse_config(AlignConfig, values, "align.yaml")


def test_configuration_composes_or_names(tmp_path):
    composed = {"reward": "free", "aggregation": "softmax", "margin": {"kind": "napo", "alpha": 1}}
    objective = make_objective(align_config(composed, tmp_path))
    assert composition(objective)["margin"] == "napo" and objective.margin.alpha == 1
    named = make_objective(align_config({"name": "dmpo", "selection": "top-k"}, tmp_path))
    assert composition(named)["selection"] == "top-k"
    assert make_objective(align_config({}, tmp_path)).name == "napo"


@pytest.mark.parametrize(
    ("given", "flat"),
    [
        ({"name": "napo", "options": {"rho": 0.2}}, {"name": "napo", "rho": 0.2}),
        ({"rho": 0.2, "beta": None, "reward": None}, {"name": "napo", "rho": 0.2}),
        ({"name": "dmpo", "selection": "all"}, {"name": "dmpo", "selection": "all"}),
        ({"beta": "1e-1"}, {"name": "napo", "beta": 0.1}),
        (
            {"parts": {"reward": "free", "aggregation": "mean", "selection": "boundary"}},
            {"reward": "free", "aggregation": "mean", "selection": "boundary"},
        ),
    ],
)
def test_configuration_is_flat_where_it_is_written(tmp_path, given, flat):
    config = align_config(given, tmp_path)
    assert config.model_dump(mode="json")["objective"] == flat
    assert align_config(flat, tmp_path) == config
    make_objective(config)


def test_configuration_and_objectives_have_the_same_parts():
    assert set(PARTS) == set(composition(build_objective("napo")))


def test_configuration_holds_a_name_and_options_or_parts(tmp_path):
    named = align_config({"rho": 0.2, "selection": "boundary"}, tmp_path).objective
    assert (named.name, named.options) == ("napo", {"rho": 0.2, "selection": "boundary"})
    assert named.parts == {}
    parts = {"reward": "free", "aggregation": "mean", "selection": "boundary"}
    composed = align_config(parts, tmp_path).objective
    assert (composed.name, composed.options, composed.parts) == (None, {}, parts)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"name": "napo", "reward": "free"}, "not both"),
        ({"reward": "free", "aggregation": "mean", "alpha": 1}, "alpha: in a composed objective"),
        ({"reward": "free", "agregation": "mean"}, "agregation: unknown part; did you mean"),
        ({"rho": 0.5, "options": {"rho": 0.7}}, r"rho: also given as objective\.options\.rho"),
        ({"options": 3}, "options: Input should be a valid dictionary"),
        (
            {"reward": "free", "aggregation": "meen"},
            r"^objective\.aggregation: unknown aggregation 'meen'; did you mean 'mean'",
        ),
        (
            {"reward": "free", "aggregation": "mean", "negatives": {"kind": "shared", "rho": 2}},
            r"^objective\.negatives\.rho: expected a number from 0 to 1, got 2",
        ),
        (
            {"reward": "free", "aggregation": "softmax", "link": "smoothed"},
            "^objective: link 'smoothed'",
        ),
        ({"name": "dmpo", "rho": 0.5}, r"^objective\.rho: objective 'dmpo' has no option 'rho'"),
        ({"name": "dmpoo"}, r"^objective\.name: unknown objective 'dmpoo'; did you mean 'dmpo'"),
        ({"nam": "dmpo"}, r"^objective\.nam: .* did you mean 'name'"),
        ({"rho": 1.5}, r"^objective\.rho: expected a number from 0 to 1, got 1.5"),
        ({"rho": [0.5]}, r"^objective\.rho: expected a number from 0 to 1, got \[0.5\]"),
    ],
)
def test_configuration_names_the_wrong_setting(tmp_path, objective, message):
    with pytest.raises(InputError, match=message):
        make_objective(align_config(objective, tmp_path))


@pytest.mark.parametrize(
    ("command", "file", "prefix"),
    [
        (["show", "align"], "jobs/configs/align.yaml", ""),
        (["align"], "jobs/configs/align.yaml", ""),
        (["show", "tune"], "tune/napo.yaml", "align."),
        (["tune"], "tune/napo.yaml", "align."),
        (["pipeline"], "jobs/configs/pipeline.yaml", "align."),
    ],
)
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective.rho=1.5", "objective.rho: expected a number from 0 to 1, got 1.5"),
        ("objective.options.rho=1.5", "objective.rho: expected a number from 0 to 1, got 1.5"),
        ("objective.rhoo=1", "objective.rhoo: objective 'napo' has no option 'rhoo'; did you mean"),
        ("objective.name=dpoo", "objective.name: unknown objective 'dpoo'; did you mean 'dpo'?"),
    ],
)
def test_every_command_refuses_before_anything_starts(
    tmp_path, command, file, prefix, override, message
):
    """The data sets that these files name do not exist: the objective is checked before them."""
    overrides = [f"output={tmp_path}/out", f"{prefix}{override}"]
    if command == ["pipeline"] and ".options." in override:
        overrides.append("align.objective.rho=null")  # the file has a rho
    result = CliRunner().invoke(app, [*command, "--config", str(ROOT / file), *overrides])
    assert isinstance(result.exception, InputError), result.output
    assert f"{prefix}{message}" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_the_command_line_takes_both_forms():
    file = str(ROOT / "jobs/configs/align.yaml")
    for override in ("objective.rho=0.7", "objective.options.rho=0.7"):
        shown = CliRunner().invoke(app, ["show", "align", "--config", file, override])
        assert "objective:\n  name: napo\n  rho: 0.7\n" in shown.stdout
