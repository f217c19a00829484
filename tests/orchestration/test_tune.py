"""Searches on real Ray: concurrent trials, stopped, killed and resumed, failed ones."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from raypo.config import AlignConfig, SearchRange, TuneConfig, load_config, parse_config
from raypo.errors import InputError, StoppedRun
from raypo.evaluation.search_report.trials import SCORE, Trial, write_trials
from raypo.io.run_folder import open_run, read_metrics
from raypo.orchestration.tuning.sampler import Observation, SettingsSampler
from raypo.orchestration.tuning.search_space import check_space
from raypo.orchestration.tuning.tune import tune

RAYPO = str(Path(sys.executable).with_name("raypo"))
SCRIPT = Path(__file__).resolve().parents[2] / "tune" / "search.py"
slow = pytest.mark.slow


def values(inputs, output, **search):
    """A search over runs of 24 steps with a validation every fourth."""
    data, recommender, adapter = inputs
    align = {
        "data": str(data),
        "recommender": str(recommender),
        "policy": {"model": "tiny-random", "adapter": str(adapter), "dtype": "float32"},
        "objective": {"name": "napo"},
        "max_rows": 48,
        "micro_batch_size": 4,
        "epochs": 2,
        "validation": {"eval_steps": 4, "max_rows": 16},
        "cluster": {"workers": 1, "engine": "torch", "cpus_per_worker": 0.5},
    }
    align |= search.pop("align", {})
    return {"align": align, "output": str(output), **search}


def written(folder, content):
    """The command that runs this search."""
    file = folder / "search-config.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return [RAYPO, "tune", "--config", str(file)]


def run(command, timeout=400, **more):
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=timeout, **more
    )


def trials_of(output):
    return json.loads((output / "trials.json").read_text())["trials"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objective.rhoo": [0]},
            "space.objective.rhoo=0: objective.rhoo: objective 'napo' has no option 'rhoo'; "
            "did you mean 'rho'?",
        ),
        (
            {"objective.rho": [0.5, 1.5]},
            "space.objective.rho=1.5: objective.rho: expected a number from 0 to 1, got 1.5",
        ),
        (
            {"objective.rho": {"low": 0, "high": 2}},
            "space.objective.rho=2.0: objective.rho: expected a number from 0 to 1, got 2.0",
        ),
        ({"objective.tau": [1.0]}, "space.objective.tau=1.0: objective.tau: objective 'napo'"),
        (
            {"objective.rho": [0], "objective.options.rho": [1]},
            "space.objective.options.rho: the same setting as space.objective.rho",
        ),
        ({"negatives": [3, 40]}, "negatives: 40 is more than the candidate sets hold (19)"),
        ({"negatives": [2.5]}, "negatives: Input should be a valid integer"),
        (
            {"negatives": {"low": 1, "high": 5, "step": 0.5}},
            "a range of integers needs an integer step, got 0.5",
        ),
        ({"objective.rho": [0.5, 0.5]}, "objective.rho: 0.5 is listed twice"),
        ({"objective.mask_collisions": {"low": 0, "high": 1}}, "only numbers can have a range"),
        ({"seed.x": [1]}, "seed is a value, not a group"),
        *(
            ({key: ["x"]}, f"space.{key}: all trials of a search share this")
            for key in ("data", "output", "recommender", "policy.adapter", "validation.max_rows")
        ),
    ],
)
def test_an_invalid_space_is_refused(inputs, tmp_path, changes, message):
    config = parse_config(TuneConfig, values(inputs, tmp_path, space=changes), "test")
    with pytest.raises(InputError) as caught:
        tune(config)
    assert message in str(caught.value) and "space." in str(caught.value)
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"space": {}}, "space: "),
        ({"space": {"objective.rho": []}}, "space.objective.rho: no values"),
        ({"space": {"objective.rho": 0.5}}, "space.objective.rho: expected a list of values or"),
        ({"space": {"objective.rho": [[0]]}}, "expected plain values, got [0]"),
        ({"space": {"a": {"low": 1, "high": 1}}}, "low 1 is not below high 1"),
        ({"space": {"a": {"low": 0, "high": 1, "log": True}}}, "log: needs low above 0, got 0"),
        ({"space": {"a": {"low": 1, "high": 2, "log": True, "step": 1}}}, "do not go together"),
        ({"space": {"a": {"lo": 1, "high": 2}}}, "unknown key; did you mean 'low'?"),
        ({"space": {"a": {"low": 0, "high": 1}}, "sampler": "grid"}, "grid takes lists of values"),
        ({"space": {"a": [1]}, "asha": {"reduction_factor": 1}}, "asha.reduction_factor: "),
        ({"space": {"a": [1]}, "sampler": "uniform"}, "sampler: Input should be 'tpe'"),
    ],
)
def test_an_invalid_setting_of_a_search_is_named(inputs, tmp_path, search, message):
    with pytest.raises(InputError) as caught:
        parse_config(TuneConfig, values(inputs, tmp_path, **search), "test")
    assert message in str(caught.value)


def test_the_best_alignment_goes_into_a_folder_of_its_own(inputs, tmp_path):
    space = {"objective.rho": [0]}
    config = parse_config(TuneConfig, values(inputs, tmp_path, space=space), "test")
    assert config.align.output == tmp_path / "best"
    same = values(inputs, tmp_path, space=space, align={"output": str(tmp_path)})
    with pytest.raises(InputError, match=r"align\.output: is the search's own folder"):
        parse_config(TuneConfig, same, "test")


def test_values_get_the_types_of_their_settings(inputs, tmp_path):
    space = {
        "negatives": {"low": 1, "high": 7},
        "objective.gamma": [1, 2],
        "objective.options.rho": [0, 1],
        "objective.top_k": {"low": 1, "high": 4},
        "objective.confidence_start": [None, 0.5],
        "optimiser.learning_rate": {"low": "1e-5", "high": "1e-3", "log": True},
    }
    config = parse_config(TuneConfig, values(inputs, tmp_path, space=space), "test")
    checked = check_space(config)
    assert isinstance(checked["negatives"], SearchRange)
    assert type(checked["negatives"].low) is type(checked["negatives"].high) is int
    assert [type(value) for value in checked["objective.gamma"]] == [float, float]
    assert checked["objective.rho"] == (0, 1)
    assert type(checked["objective.top_k"].low) is type(checked["objective.top_k"].high) is int
    assert checked["objective.confidence_start"] == (None, 0.5)
    assert checked["optimiser.learning_rate"].low == 1e-5


def test_a_trial_in_its_own_process_has_one_worker(inputs, tmp_path):
    search = {"space": {"objective.rho": [0, 1]}, "align": {"cluster": {"launcher": "local"}}}
    config = parse_config(TuneConfig, values(inputs, tmp_path, **search), "test")
    with pytest.raises(InputError, match="launcher local runs 1 in each trial, got 2"):
        tune(config)


@pytest.mark.parametrize(
    "asha", [{"asha": {"grace_steps": 24}}, {"align": {"validation": {"eval_steps": 24}}}]
)
def test_halving_that_could_stop_nothing_is_refused(inputs, tmp_path, asha):
    search = {"space": {"objective.rho": [0, 1]}, "scheduler": "asha", **asha}
    config = parse_config(TuneConfig, values(inputs, tmp_path, **search), "test")
    with pytest.raises(InputError, match="a run has 24 steps, and could first be stopped at"):
        tune(config)


def wait_for(process, condition):
    until = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)


def kill(process):
    """Kill the driver's process group; then wait for the processes that Ray leaves behind."""
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=10)
    for one in alive:
        one.kill()


@slow
def test_a_killed_search_resumes_and_runs_no_finished_trial_again(inputs, tmp_path):
    """Two trials at a time on half a core each; the driver is killed while the third trains."""
    output = tmp_path / "search"
    space = {"objective.rho": {"low": 0, "high": 1}, "negatives": {"low": 1, "high": 5}}
    search = values(
        inputs, output, space=space, sampler="random", trials=3, max_concurrent_trials=2, seed=5
    )
    search["align"]["cluster"]["launcher"] = "local"
    command = written(tmp_path, search)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    third = output / "trials" / "002"
    wait_for(process, lambda: len(read_metrics(third)) >= 9)
    kill(process)
    before = {row["number"]: row for row in trials_of(output)}
    ended = [number for number, row in before.items() if row["status"] == "finished"]
    assert ended and before[2]["status"] == "running"
    summaries = {number: output / "trials" / f"{number:03}" / "summary.json" for number in ended}
    times = {number: file.stat().st_mtime_ns for number, file in summaries.items()}
    first_steps = read_metrics(third)[:8]

    again = run([*command, "trials=4"])  # which a search in the same folder may be given
    assert again.returncode == 0, again.stderr
    trials = trials_of(output)
    assert [row["number"] for row in trials] == [0, 1, 2, 3]
    assert {row["status"] for row in trials} == {"finished"}
    assert times == {number: file.stat().st_mtime_ns for number, file in summaries.items()}
    lines = read_metrics(third)
    assert [line["step"] for line in lines] == list(range(1, 25))
    assert lines[:8] == first_steps  # even their times: these steps were not taken again
    # The proposals are those of an undisturbed search.
    config = load_config(TuneConfig, tmp_path / "search-config.yaml")
    sampler = SettingsSampler(check_space(config), "random", seed=5, trials=4)
    observations = []
    for row in trials:
        assert row["settings"] == sampler.propose(observations)
        assert row["settings"]["negatives"] in range(1, 6)
        observations.append(Observation(row["settings"], row[SCORE], True))
    best = max(trials, key=lambda row: (row[SCORE], -row["number"]))
    aligned = load_config(AlignConfig, output / "best.yaml")
    assert aligned.objective.options["rho"] == best["settings"]["objective.rho"]
    assert aligned.output == output / "best"
    assert aligned.negatives == best["settings"]["negatives"]
    assert "│ 3 " in again.stderr and "Warning" not in again.stderr + again.stdout
    json.loads(again.stdout)
    # Both ran concurrently: the second began before the first was done.
    folders = [output / "trials" / name for name in ("000", "001")]
    began = max((folder / "config.yaml").stat().st_mtime for folder in folders)
    assert began < min((folder / "summary.json").stat().st_mtime for folder in folders)

    # Nothing is left to do: the search is recognised without Ray.
    config = load_config(TuneConfig, tmp_path / "search-config.yaml", ["trials=4"])
    assert tune(config)["trials"] == trials_of(output) == trials


@slow
def test_halving_knows_earlier_trials_and_frees_the_cores_of_those_it_stops(inputs, tmp_path):
    """Two perfect trials are on record, so that every further one is stopped at step 4.

    A trial takes all cores of the machine: the second can only start when the first has freed them.
    """
    output = tmp_path / "search"
    cluster = {"workers": 1, "engine": "torch", "cpus_per_worker": os.cpu_count()}
    search = values(
        inputs,
        output,
        space={"objective.rho": [0.1, 0.3, 0.5, 0.7]},
        sampler="grid",
        scheduler="asha",
        asha={"grace_steps": 4},
        max_concurrent_trials=2,
        align={"cluster": cluster, "epochs": 500},
    )
    command = written(tmp_path, search)
    open_run(output, load_config(TuneConfig, tmp_path / "search-config.yaml"))
    known = []
    for number, rho in enumerate((0.1, 0.3)):
        folder = output / "trials" / f"{number:03}"
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 4, "loss": 1.0, SCORE: 1.0}))
        known.append(Trial(number, {"objective.rho": rho}, folder, "finished"))
    write_trials(output / "trials.json", known, num_rows=16)
    answer = run(command)
    assert answer.returncode == 0, answer.stderr
    trials = trials_of(output)
    assert [row["status"] for row in trials] == ["finished"] * 2 + ["stopped"] * 2
    for row in trials[2:]:
        assert row["best_step"] is not None and row["steps"] < 6000
        assert list((Path(row["output"]) / "checkpoints").glob("checkpoint_*"))
    assert [row["settings"]["objective.rho"] for row in trials] == [0.1, 0.3, 0.5, 0.7]


@slow
def test_a_failed_trial_is_reported_and_the_others_share_their_inputs(inputs, tmp_path):
    """One of three learning rates blows up; the reference log-probs are computed once for all."""
    output, cache = tmp_path / "search", tmp_path / "cache"
    search = values(
        inputs,
        output,
        space={"optimiser.learning_rate": [1e-3, 1e30, 2e-3]},
        sampler="grid",
        align={
            "objective": {"name": "dpo"},
            "optimiser": {"max_grad_norm": 1e30},
            "cluster": {"workers": 1, "engine": "torch", "launcher": "local"},
        },
    )
    _, _, *arguments = written(tmp_path, search)
    environment = os.environ | {"RAYPO_CACHE": str(cache)}
    answer = run([sys.executable, str(SCRIPT), *arguments], env=environment)
    assert answer.returncode == 0, answer.stderr
    trials = trials_of(output)
    assert [row["status"] for row in trials] == ["finished", "failed", "finished"]
    assert "the loss is" in trials[1]["error"]
    output_text = " ".join(answer.stderr.split())
    assert "trial 1 failed: step" in output_text and "Traceback" not in output_text
    assert "│ 2 " in answer.stderr
    (reference,) = (cache / "reference").iterdir()
    assert reference.stat().st_mtime < (output / "trials" / "001" / "config.yaml").stat().st_mtime
    page = (output / "search.html").read_text()
    assert "3 trials: 2 finished, 1 failed" in page and "the loss is" in page


def test_a_search_in_which_everything_failed_says_why(inputs, tmp_path):
    search = values(inputs, tmp_path / "search", space={"seed": [0, 1]}, sampler="grid")
    config = parse_config(TuneConfig, search, "test")
    open_run(config.output, config)
    failed = []
    bad_batches = ("bad-batch-step-00000001-rank-0", "offending-step-00000001-worker-0")
    for number, name in enumerate(bad_batches):
        folder = config.output / "trials" / f"{number:03}"
        folder.mkdir(parents=True)
        (folder / f"{name}.json").write_text("{}")
        failed.append(Trial(number, {"seed": number}, folder, "failed", f"reason {number}"))
    write_trials(config.output / "trials.json", failed, num_rows=16)
    with pytest.raises(StoppedRun, match="every trial failed; the first with: reason 0"):
        tune(config)
    assert not (config.output / "best.yaml").exists()
