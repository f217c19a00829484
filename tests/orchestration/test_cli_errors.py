"""A user's mistake: exit code 2, one message that names the setting, and nothing heavy started."""

import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raypo.cli import main
from tests.orchestration.refusals import refusal

RAYPO = str(Path(sys.executable).with_name("raypo"))


def raypo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([RAYPO, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sft", "data=nowhere", "output=out"], "no such data set"),
        (["sft", "output=out"], "data: required, not given"),
        (["align", "data=x", "output=out"], "alignment starts from an SFT adapter"),
        (["data", "prepare", "interactions=no.inter", "items=no.item", "output=o"], "no.inter"),
        (["sft", "data=x", "output=out", "max_row=3"], "did you mean 'max_rows'?"),
        (["sft", "--config", "missing.yaml"], "missing.yaml: no such configuration file"),
        (["demo", "--scale", "huge"], "expected smoke, demo or full"),
        (["data", "fetch", "nothing"], "unknown; known are movielens-100k"),
        (["evaluate", "data=x", "output=o", "heuristic=random", "recommender=r"], "not several"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_started(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    text = refusal(arguments, monkeypatch, capsys)
    assert "error:" in text and message in text


def test_the_command_itself_ends_soon_and_without_a_traceback(tmp_path):
    started = time.monotonic()
    answer = subprocess.run(
        [RAYPO, "sft", "data=nowhere", "output=out"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert answer.returncode == 2
    assert "no such data set" in answer.stderr and "Traceback" not in answer.stderr
    assert time.monotonic() - started < 60


MODEL = ["policy.model=tiny-random", "policy.dtype=float32"]
FAILING = {
    "sft": ["sft", "data=nowhere", "cluster.workers=1", *MODEL],
    "align": ["align", "data={data}", "policy.adapter={adapter}", "negatives=99", *MODEL],
    "recommender": ["recommender", "train", "data={data}", "hidden=63"],
    "evaluate": ["evaluate", "data=nowhere", "heuristic=random"],
    "tune": [
        "tune", "align.data=nowhere", "align.policy.adapter={adapter}", "trials=1",
        "space.objective.beta=[0.1,1]", *(f"align.{value}" for value in MODEL),
    ],
    "prepare": ["data", "prepare", "interactions=no.inter", "items=no.item"],
    "import": ["data", "import", "test=no.jsonl"],
}  # fmt: skip


@pytest.mark.parametrize("stage", FAILING)
@pytest.mark.parametrize("output", ["out", "file/out", "/proc/out"])
def test_a_stage_that_fails_on_its_inputs_writes_nothing(
    inputs, stage, output, tmp_path, monkeypatch, capsys
):
    data, _, adapter = inputs
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    arguments = [one.format(data=data, adapter=adapter) for one in FAILING[stage]]
    refusal([*arguments, f"output={output}"], monkeypatch, capsys)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_a_corrected_command_takes_the_folder_of_the_one_that_failed(inputs, tmp_path):
    data, _, _ = inputs
    common = ["recommender", "train", f"data={data}", f"output={tmp_path / 'run'}", "max_epochs=1"]
    failed = raypo(*common, "launcher=local", "hidden=63")
    assert failed.returncode == 2 and "hidden: 63 is not a multiple of heads" in failed.stderr
    assert raypo(*common, "launcher=local", "hidden=16").returncode == 0


@pytest.mark.parametrize("output", ["file/out", "/proc/out", "x" * 300])
def test_an_output_that_cannot_be_made_is_named(inputs, tmp_path, output, monkeypatch, capsys):
    data, _, _ = inputs
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for arguments in (
        ["recommender", "train", "launcher=local", f"data={data}"],
        ["evaluate", f"data={data}", "heuristic=random"],
        ["data", "import", f"test={write_published(tmp_path)}"],
    ):
        message = refusal([*arguments, f"output={output}"], monkeypatch, capsys)
        assert output.rpartition("/")[0] in message and "kept" not in message


def write_published(folder):
    row = '{"historyList": ["a"], "itemList": ["b", "a"], "trueSelection": "b"}'
    (folder / "test.jsonl").write_text(row + "\n")
    return folder / "test.jsonl"


@pytest.mark.slow
@pytest.mark.parametrize("when", ["at the start", "in training"])
def test_ctrl_c_ends_with_one_line_and_the_run_goes_on_later(inputs, tmp_path, when):
    data, _, _ = inputs
    run = tmp_path / "run"
    command = [
        RAYPO, "sft", f"data={data}", f"output={run}", *MODEL, "cluster.workers=1",
        "cluster.launcher=local", "cluster.engine=torch", "max_rows=24", "micro_batch_size=2",
        "epochs=30", "validation.eval_steps=5", "validation.max_rows=8",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    awaited = run / ("checkpoints/step-00000005" if when == "in training" else "config.yaml")
    until = time.monotonic() + 300
    while not awaited.exists() and time.monotonic() < until:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "stopped; the same command continues from what is complete" in errors
    assert "Traceback" not in errors
    again = subprocess.run([*command[:-3], "epochs=1"], capture_output=True, text=True, check=False)
    assert again.returncode == 2  # another configuration: the folder is the first one's


def test_a_run_folder_of_another_configuration_is_refused(tmp_path):
    from raypo.config import RecommenderConfig
    from raypo.errors import InputError
    from raypo.io.run_folder import open_run

    config = RecommenderConfig(data=tmp_path, output=tmp_path / "run")
    open_run(config.output, config)
    open_run(config.output, config)
    with pytest.raises(InputError, match="already holds a run with another configuration"):
        open_run(config.output, RecommenderConfig(data=tmp_path, output=config.output, hidden=32))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a run folder"):
        open_run(tmp_path / "other", config)


def test_show_prints_the_arithmetic_and_runs_nothing(tmp_path):
    answer = raypo("show", "align", "data=x", "output=y", "policy.adapter=z", "micro_batch_size=8")
    assert answer.returncode == 0, answer.stderr
    assert "8 users x 1 micro-batches x 2 workers = 16 users a step" in answer.stdout


def test_warnings_of_the_library_are_printed_to_stderr(monkeypatch, capsys):
    def warn():
        logging.getLogger("raypo").warning("checkpoint [3] is damaged")
        logging.getLogger("raypo").info("of no interest")

    monkeypatch.setattr(sys.modules["raypo.cli.main"], "app", warn)
    main()
    main()
    assert capsys.readouterr() == ("", 2 * "checkpoint [3] is damaged\n")
