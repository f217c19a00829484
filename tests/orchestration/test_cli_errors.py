"""A user's mistake: exit code 2, one message that names the setting, and nothing heavy started."""

import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raypo.cli import main

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
    monkeypatch.setattr("sys.argv", ["raypo", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    text = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2
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


def test_a_run_folder_of_another_configuration_is_refused(tmp_path):
    from raypo.config import InputError, RecommenderConfig
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
