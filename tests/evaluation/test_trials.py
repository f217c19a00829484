"""Trials of a search: scores by HitRatio@1, collapses, and the file that holds them."""

import json
from pathlib import Path

import pytest

from raypo.errors import InputError
from raypo.evaluation.search_report.trials import (
    SCORE,
    Collapse,
    Point,
    Trial,
    best_trial,
    find_collapse,
    read_trial_metrics,
    read_trials,
    short_names,
    standard_error,
    write_trials,
)


def curve(hits, losses):
    """Points at steps 10, 20, …"""
    pairs = enumerate(zip(hits, losses, strict=True))
    return [Point(10 * (i + 1), hit, loss) for i, (hit, loss) in pairs]


def trial(number, hits, losses, status="finished", folder=Path("/nowhere")):
    """A validation every second step."""
    metrics = []
    for index, loss in enumerate(losses):
        line = {"step": index + 1, "loss": loss}
        if index % 2:
            line[SCORE] = hits[index // 2]
        metrics.append(line)
    return Trial(number, {"objective.rho": 0.5}, folder / f"{number:03}", status, None, metrics)


def test_a_score_is_the_best_validation_whatever_the_loss():
    one = trial(0, [0.2, 0.4, 0.4, 0.1], [8, 6, 5, 3, 2, 2, 1, 0])
    assert one.score == 0.4
    assert one.best == Point(4, 0.4, 4.0)  # the first of equals; loss is the mean of steps 3 and 4
    assert [point.loss for point in one.points] == [7, 4, 2, 0.5]


def test_the_best_trial_is_the_one_with_the_best_hit_ratio():
    trials = [
        trial(0, [0.2], [1, 0.1]),
        trial(1, [0.4], [9, 9], "stopped"),
        trial(2, [0.4], [1, 1]),
        trial(3, [0.9], [1, 1], "failed"),
        trial(4, [], []),
    ]
    assert best_trial(trials).number == 1
    assert best_trial(trials[4:]) is None


def test_a_hit_ratio_that_falls_while_the_loss_falls_is_a_collapse():
    points = curve([0.2, 0.4, 0.3, 0.1], [3.0, 2.0, 1.0, 0.5])
    assert find_collapse(points, num_rows=100) == Collapse(points[1], points[3])


@pytest.mark.parametrize(
    ("hits", "losses", "rows"),
    [
        ([0.2, 0.4, 0.3, 0.1], [3.0, 2.0, 2.5, 2.0], 100),  # the loss shows it
        ([0.2, 0.4, 0.1, 0.4], [3.0, 2.0, 1.0, 0.5], 100),  # it recovers
        ([0.2, 0.4, 0.4, 0.31], [3.0, 2.0, 1.0, 0.5], 100000),  # less than a quarter
        ([0.2, 0.4, 0.3, 0.1], [3.0, 2.0, 1.0, 0.5], 8),  # within noise: 2 x 0.17
        ([0.0, 0.0], [2.0, 1.0], 100),  # nothing to fall from
        ([0.4], [1.0], 100),
        ([], [], 100),
    ],
)
def test_other_curves_are_no_collapse(hits, losses, rows):
    assert find_collapse(curve(hits, losses), rows) is None


def test_the_standard_error_of_a_hit_ratio():
    assert standard_error(0.5, 100) == pytest.approx(0.05)
    assert standard_error(0.0, 100) == 0.0


def test_trials_are_read_back_with_the_metrics_in_their_folders(tmp_path):
    trials = [trial(0, [0.4, 0.1], [3, 3, 1, 1], folder=tmp_path), trial(1, [], [], "running")]
    trials[0].output.mkdir()
    lines = "".join(json.dumps(line) + "\n" for line in trials[0].metrics)
    (trials[0].output / "metrics.jsonl").write_text(lines)
    content = write_trials(tmp_path / "trials.json", trials, num_rows=100)
    row = content["trials"][0]
    assert content["best"] == row
    assert (row[SCORE], row["best_step"], row["steps"], row["loss"]) == (0.4, 2, 4, 1.0)
    assert row["collapse"]["best"] == {"step": 2, "hit_ratio": 0.4, "loss": 3.0}
    assert content["trials"][1][SCORE] is None
    read = read_trials(tmp_path / "trials.json")
    assert [one.points for one in read] == [one.points for one in trials]
    assert [one.status for one in read] == ["finished", "running"]
    assert read_trials(tmp_path / "none.json") == []


def test_the_file_of_an_earlier_version_is_read(tmp_path):
    row = {
        "number": 0, "settings": {"objective.rho": 0.5}, "status": "stopped", SCORE: 0.4,
        "best_step": 2, "steps": 4, "loss": 1.0, "collapse": None, "error": None,
        "output": str(tmp_path / "000"),
    }  # fmt: skip
    (tmp_path / "trials.json").write_text(json.dumps({"best": row, "trials": [row]}))
    assert read_trials(tmp_path / "trials.json") == [
        Trial(0, {"objective.rho": 0.5}, tmp_path / "000", "stopped", metrics=[])
    ]
    again = write_trials(tmp_path / "trials.json", [trial(0, [0.4], [1, 1])], num_rows=16)
    assert list(again["trials"][0]) == list(row)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "trials.json").write_text('{"trials": [{"a": 1}]}')
    with pytest.raises(InputError, match="not a list of trials"):
        read_trials(tmp_path / "trials.json")


def test_a_line_that_is_being_written_is_not_read(tmp_path):
    one = trial(0, [0.4], [3, 3], folder=tmp_path)
    one.output.mkdir()
    (one.output / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    assert read_trial_metrics(one) == one


def test_keys_are_shortened_where_that_is_unique():
    keys = ["objective.alpha", "objective.rho", "policy.lora.alpha", "negatives"]
    assert short_names(keys) == ["objective.alpha", "rho", "policy.lora.alpha", "negatives"]
