"""Asynchronous successive halving that knows the trials of an interrupted search."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

from ray.tune.schedulers import ASHAScheduler

from raypo.config import AshaConfig
from raypo.evaluation.search_report.trials import SCORE, Trial


def make_asha(config: AshaConfig, total_steps: int, trials: Sequence[Trial]) -> ASHAScheduler:
    """Make the scheduler, and report to it what ended trials scored.

    Ray Tune does not store a scheduler's state. Resumed trials report their earlier validations
    themselves.

    Args:
        config: when to stop a trial.
        total_steps: optimiser steps of a trial that is not stopped.
        trials: so far.
    """
    asha = ASHAScheduler(
        time_attr="step",
        metric=SCORE,
        mode="max",
        max_t=total_steps,
        grace_period=config.grace_steps,
        reduction_factor=config.reduction_factor,
        # Else a trial that passed a halving would be compared again, later, with earlier scores.
        stop_last_trials=False,
    )
    for trial in trials:
        if not trial.ended:
            continue
        ray_trial = SimpleNamespace(trial_id=f"before-{trial.number}")
        asha.on_trial_add(None, ray_trial)
        for line in trial.metrics:
            if SCORE in line and line["step"] < total_steps:
                asha.on_trial_result(None, ray_trial, dict(line))
    return asha
