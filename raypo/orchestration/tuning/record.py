"""The record of a search: its trials, which of them are left to run, and how each ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from raypo.evaluation.search_report.trials import SettingValue, Status, Trial, read_trial_metrics
from raypo.orchestration.tuning.sampler import Observation, SettingsSampler


class SearchRecord:
    """Trials in the order of their proposals.

    Ray Tune pickles the searcher that holds it, so it holds plain values alone.
    """

    def __init__(self, sampler: SettingsSampler, folder: Path, trials: Sequence[Trial]) -> None:
        """Start from the trials so far.

        Args:
            sampler: proposes the settings of new trials.
            folder: of the search; a trial's run folder is in its `trials`.
            trials: in order; those that have not ended are run first.
        """
        self.trials = list(trials)
        self._sampler = sampler
        self._folder = folder
        self._interrupted = [trial.number for trial in trials if not trial.ended]

    @property
    def num_trials(self) -> int:
        """Trials of the whole search at most."""
        return self._sampler.num_trials

    @property
    def num_left(self) -> int:
        """Trials that are still to be run; 0 too if no settings are left to propose."""
        new = max(0, self.num_trials - len(self.trials))
        if not self._interrupted and new and self._proposal() is None:
            return 0
        return len(self._interrupted) + new

    @property
    def num_ended(self) -> int:
        """Trials that are not to be run any further."""
        return sum(trial.ended for trial in self.trials)

    def next_trial(self) -> Trial | None:
        """The next trial to run: an interrupted one, then a new one; None if there is none."""
        if self._interrupted:
            return self.trials[self._interrupted.pop(0)]
        settings = self._proposal()
        if settings is None:
            return None
        number = len(self.trials)
        trial = Trial(number, settings, self._folder / "trials" / f"{number:03}")
        self.trials.append(trial)
        return trial

    def end_trial(self, number: int, status: Status, error: str | None) -> None:
        """Record how a trial ended, with the metrics in its run folder."""
        trial = read_trial_metrics(self.trials[number])
        self.trials[number] = replace(trial, status=status, error=error)

    def refresh(self) -> None:
        """Read the metrics of ended trials again: a stopped one's worker writes a little longer."""
        self.trials = [read_trial_metrics(trial) if trial.ended else trial for trial in self.trials]

    def _proposal(self) -> dict[str, SettingValue] | None:
        return self._sampler.propose([_observation(trial) for trial in self.trials])


def _observation(trial: Trial) -> Observation:
    score = None if trial.status == "failed" else trial.score
    return Observation(trial.settings, score, trial.ended)
