"""The record of a search: which trial comes next, and that a resumed search goes on as it began."""

import json

import pytest

from raypo.config import SearchRange
from raypo.evaluation.search_report.trials import SCORE, Trial, read_trials, write_trials
from raypo.orchestration.tuning.record import SearchRecord
from raypo.orchestration.tuning.sampler import SettingsSampler

SPACE = {"objective.rho": SearchRange(low=0, high=1), "objective.gamma": (0.5, 1.0, 2.0)}


def run_next(record, status="finished"):
    """Run the next trial: its run folder gets a validation whose score is rho."""
    trial = record.next_trial()
    trial.output.mkdir(parents=True, exist_ok=True)
    line = {"step": 4, "loss": 1.0, SCORE: trial.settings["objective.rho"]}
    (trial.output / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    record.end_trial(trial.number, status, "why" if status == "failed" else None)


@pytest.mark.parametrize("method", ["tpe", "random"])
def test_a_search_resumed_from_its_file_proposes_what_it_would_have_proposed(tmp_path, method):
    sampler = SettingsSampler(SPACE, method, seed=3, trials=12)
    record = SearchRecord(sampler, tmp_path, [])
    for number in range(12):
        if number == 7:
            write_trials(tmp_path / "trials.json", record.trials, num_rows=16)
        run_next(record, "failed" if number == 2 else "finished")
    resumed = SearchRecord(sampler, tmp_path, read_trials(tmp_path / "trials.json"))
    assert (len(resumed.trials), resumed.num_ended, resumed.num_left) == (7, 7, 5)
    for _ in range(5):
        run_next(resumed)
    assert resumed.trials == record.trials
    assert resumed.num_left == 0


def test_interrupted_trials_come_first_and_keep_their_folders(tmp_path):
    sampler = SettingsSampler(SPACE, "random", seed=0, trials=3)
    trials = [
        Trial(0, {"objective.rho": 0.1, "objective.gamma": 1.0}, tmp_path / "a", "running"),
        Trial(1, {"objective.rho": 0.2, "objective.gamma": 1.0}, tmp_path / "b", "stopped"),
    ]
    record = SearchRecord(sampler, tmp_path, trials)
    assert (record.num_left, record.num_ended) == (2, 1)
    assert record.next_trial() == trials[0]
    assert record.num_left == 1
    new = record.next_trial()
    assert (new.number, new.output, new.status) == (2, tmp_path / "trials" / "002", "running")


def test_a_space_with_nothing_left_ends_the_search(tmp_path):
    sampler = SettingsSampler({"objective.rho": (0.0, 1.0)}, "tpe", seed=0, trials=5)
    record = SearchRecord(sampler, tmp_path, [])
    run_next(record)
    run_next(record)
    assert record.num_left == 0
    assert record.next_trial() is None
