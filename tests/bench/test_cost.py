"""Costs of runs are read from their metrics; every expected value is worked out by hand."""

import pytest
from typer.testing import CliRunner

from raypo import config as configs
from raypo.bench.cost import run_costs
from raypo.cli.main import app
from raypo.errors import InputError
from raypo.io.files import write_json
from raypo.io.run_folder import append_metrics, open_run

TRAINING = {"data": "d", "micro_batch_size": 8, "gradient_accumulation_steps": 2}


@pytest.fixture
def sft(tmp_path):
    """Two steps of 2 workers x 8 users x 2 on half a GPU each: 10 s, of 40 s in all."""
    folder = tmp_path / "runs" / "sft"
    cluster = {"workers": 2, "gpus_per_worker": 0.5}
    values = TRAINING | {"output": folder, "cluster": cluster}
    open_run(folder, configs.parse_config(configs.SftConfig, values, source="test"))
    append_metrics(folder, {"step": 1, "seconds": 6.0, "tokens_per_second": 1000.0})
    append_metrics(folder, {"step": 2, "seconds": 4.0, "tokens_per_second": 1600.0})
    write_json(folder / "summary.json", {"steps": 2, "seconds": 40.0})
    return folder


@pytest.fixture
def evaluation(tmp_path):
    folder = tmp_path / "runs" / "evaluate"
    values = {
        "data": "d",
        "output": folder,
        "adapters": {"a": None, "b": None},
        "engine": {"engines": 2, "gpus_per_engine": 1, "tensor_parallel": 2},
    }
    open_run(folder, configs.parse_config(configs.EvaluateConfig, values, source="test"))
    costs = {
        "generate": {"seconds": 90.0, "answers": 400},
        "likelihood": {"seconds": 50.0, "answers": 1000},
        "constrained": {"seconds": 0.0, "answers": 0},
    }
    for model in ("a", "b"):
        write_json(folder / model / "evaluated.json", {"cost": costs})
    return folder


def test_a_training_run_costs_its_total_time_on_the_devices_it_held(sft):
    (cost,) = run_costs([sft])
    assert (cost.stage, cost.device, cost.devices, cost.rows) == ("sft", "GPU", 1.0, 64)
    assert cost.tokens == pytest.approx(6 * 1000 + 4 * 1600)
    assert cost.device_hours == pytest.approx(40 / 3600)
    # 640 rows are ten times as many: ten times the steps' 10 s, or ten times all 40 s.
    assert cost.projected(640) == pytest.approx((100 / 3600, 400 / 3600))


def test_a_resumed_run_costs_at_least_its_steps(sft):
    write_json(sft / "summary.json", {"steps": 2, "seconds": 3.0})
    (cost,) = run_costs([sft])
    assert cost.seconds == 10.0


def test_an_unfinished_run_costs_its_steps_so_far(sft):
    (sft / "summary.json").unlink()
    (cost,) = run_costs([sft])
    assert cost.seconds == 10.0


def test_models_of_one_evaluation_count_once_and_modes_without_answers_not_at_all(evaluation):
    generate, likelihood = run_costs([evaluation])
    assert (generate.stage, generate.device, generate.devices) == ("generate", "GPU", 4)
    assert generate.device_hours == pytest.approx(90 * 4 / 3600)
    assert (likelihood.device, likelihood.devices, likelihood.rows) == ("core", 2, 1000)


def test_the_command_takes_a_folder_of_runs_and_projects(sft, evaluation, tmp_path):
    table = tmp_path / "cost.csv"
    answer = CliRunner().invoke(
        app, ["bench", "cost", str(tmp_path / "runs"), "--rows", "640", "--output", str(table)]
    )
    assert answer.exit_code == 0, answer.output
    lines = table.read_text().splitlines()
    assert lines[0].endswith(",device hours for 640 rows")
    assert [line.split(",")[1] for line in lines[1:]] == ["generate", "likelihood", "sft"]
    assert lines[3].endswith("0.0278 to 0.111")


@pytest.mark.parametrize("holds", [None, "nothing", "a run without steps"])
def test_a_folder_without_finished_runs_is_named(tmp_path, holds):
    folder = tmp_path / "runs"
    if holds is not None:
        folder.mkdir()
    if holds == "a run without steps":
        values = TRAINING | {"output": folder}
        folder.rmdir()
        open_run(folder, configs.parse_config(configs.SftConfig, values, source="test"))
    with pytest.raises(InputError, match=str(folder)):
        run_costs([folder])
