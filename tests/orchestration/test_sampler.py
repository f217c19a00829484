"""Proposals: within the space, of the settings' types, a function of seed and observations."""

import json
import subprocess
import sys

import pytest

from raypo.config import SearchRange
from raypo.orchestration.tuning.sampler import Observation, SettingsSampler


def whole(low, high, **more):
    return SearchRange(low=low, high=high, **more).model_copy(update={"low": low, "high": high})


SPACE = {
    "objective.rho": SearchRange(low=0, high=1),
    "objective.beta": SearchRange(low=0.1, high=0.95, step=0.2),
    "optimiser.learning_rate": SearchRange(low=1e-5, high=1e-3, log=True),
    "negatives": whole(1, 15),
    "micro_batch_size": whole(2, 9, step=4),
    "objective.selection": ("all", "boundary"),
}


def searched(space, method, seed, trials, score=lambda settings: 0.0):
    sampler = SettingsSampler(space, method, seed, trials)
    observations = []
    for _ in range(trials):
        settings = sampler.propose(observations)
        if settings is None:
            break
        observations.append(Observation(settings, score(settings), True))
    return [one.settings for one in observations]


@pytest.mark.parametrize("method", ["tpe", "random"])
def test_values_are_in_the_space_and_keep_their_types(method):
    for settings in searched(SPACE, method, 0, 30):
        assert list(settings) == list(SPACE)
        assert 0 <= settings["objective.rho"] <= 1
        assert round(settings["objective.beta"], 9) in (0.1, 0.3, 0.5, 0.7, 0.9)
        assert 1e-5 <= settings["optimiser.learning_rate"] <= 1e-3
        assert type(settings["negatives"]) is int and 1 <= settings["negatives"] <= 15
        assert settings["micro_batch_size"] in (2, 6)
        assert settings["objective.selection"] in ("all", "boundary")


def test_a_logarithmic_range_is_even_over_magnitudes():
    rates = [one["optimiser.learning_rate"] for one in searched(SPACE, "random", 0, 60)]
    small = sum(rate < 1e-4 for rate in rates)  # 9% of the range, half of its logarithm
    assert 20 <= small <= 40


@pytest.mark.parametrize("method", ["tpe", "random"])
def test_the_seed_decides(method):
    first = searched(SPACE, method, 3, 12, lambda one: one["objective.rho"])
    assert first == searched(SPACE, method, 3, 12, lambda one: one["objective.rho"])
    assert first != searched(SPACE, method, 4, 12, lambda one: one["objective.rho"])
    assert len({str(one) for one in first}) == 12


def test_random_proposals_do_not_depend_on_scores():
    assert searched(SPACE, "random", 1, 8) == searched(
        SPACE, "random", 1, 8, lambda one: one["objective.rho"]
    )


def test_tpe_learns_from_scores():
    """With a peak at rho 0.8, its later half is nearer to it than random values, 0.34 away."""
    space = {"objective.rho": SearchRange(low=0, high=1)}
    away = []
    for seed in range(5):
        settings = searched(space, "tpe", seed, 30, lambda one: -abs(one["objective.rho"] - 0.8))
        away += [abs(one["objective.rho"] - 0.8) for one in settings[15:]]
    assert sum(away) / len(away) < 0.15


def test_settings_of_failed_and_running_trials_are_not_proposed_again():
    space = {"objective.rho": (0.0, 0.5, 1.0)}
    observations = [
        Observation({"objective.rho": 0.0}, None, True),
        Observation({"objective.rho": 0.5}, None, False),
    ]
    assert SettingsSampler(space, "tpe", 0, 8).propose(observations) == {"objective.rho": 1.0}


def test_nothing_is_proposed_twice_and_an_exhausted_space_ends_the_search():
    space = {"objective.rho": (0.0, 1.0), "negatives": whole(1, 3)}
    for method in ("tpe", "random"):
        settings = searched(space, method, 0, 50)
        assert len(settings) == len({str(one) for one in settings}) == 6


def test_a_grid_is_every_combination_in_order():
    space = {"objective.rho": (0.0, 1.0), "negatives": (1, 3, 7)}
    assert SettingsSampler(space, "grid", 0, 2).num_trials == 6
    settings = searched(space, "grid", 0, 10)
    assert [tuple(one.values()) for one in settings] == [
        (0.0, 1), (0.0, 3), (0.0, 7), (1.0, 1), (1.0, 3), (1.0, 7),
    ]  # fmt: skip
    assert SettingsSampler(space, "tpe", 0, 2).num_trials == 2


_RESUME = """
import json, sys
from raypo.config import SearchRange
from raypo.orchestration.tuning.sampler import Observation, SettingsSampler

space = {"objective.rho": SearchRange(low=0, high=1), "objective.gamma": (0.5, 1.0, 2.0)}
method, observations = json.loads(sys.stdin.read())
sampler = SettingsSampler(space, method, 3, 12)
print(json.dumps(sampler.propose([Observation(*one) for one in observations])))
"""


@pytest.mark.parametrize("method", ["tpe", "random"])
def test_another_process_proposes_the_same(method):
    """From the observations alone, as they are read back from JSON; some failed, some run."""
    space = {"objective.rho": SearchRange(low=0, high=1), "objective.gamma": (0.5, 1.0, 2.0)}
    sampler = SettingsSampler(space, method, 3, 12)
    observations = []
    for number in range(7):
        settings = sampler.propose(observations)
        score = None if number in (2, 6) else settings["objective.rho"]
        observations.append(Observation(settings, score, number != 6))
    rows = [[one.settings, one.score, one.ended] for one in observations]
    answer = subprocess.run(
        [sys.executable, "-c", _RESUME],
        input=json.dumps([method, rows]), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(answer.stdout) == sampler.propose(observations)
