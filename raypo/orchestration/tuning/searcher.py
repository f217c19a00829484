"""The record of a search as a Searcher, through which Ray Tune asks for trials and reports on them.

`Tuner.restore` does not replace the record (Ray 2.60). It unpickles files of the run folder. Their
scheduler is the one that the search began with, so that halving would know no ended trial. It does
not continue a search whose trials have all ended, and so cannot give it more.
"""

from __future__ import annotations

from typing import Any

import ray.tune

from raypo.config import TuneConfig
from raypo.config.paths import uri
from raypo.evaluation.search_report.trials import SCORE, Status, best_trial
from raypo.io.remote import fetch
from raypo.orchestration.abort import abort_run, unregister_run
from raypo.orchestration.progress_actor import progress_reporter
from raypo.orchestration.tuning.outputs import write_outputs
from raypo.orchestration.tuning.record import SearchRecord
from raypo.orchestration.tuning.search_space import trial_values
from raypo.orchestration.tuning.trial import ERROR, FINISHED


class TrialSearcher(ray.tune.search.Searcher):  # type: ignore[misc]
    """Hands out the trials of a record, and records how each ended.

    Ray Tune pickles it, so it holds plain values and refers to actors by name.
    """

    def __init__(
        self, config: TuneConfig, record: SearchRecord, progress_name: str, registry: str
    ) -> None:
        """Start with nothing running.

        Args:
            config: of the search.
            record: trials so far.
            progress_name: of the progress actor.
            registry: name of the registry of runs that may have to be aborted.
        """
        super().__init__()
        self._config = config
        self._record = record
        self._progress_name = progress_name
        self._registry = registry
        self._running: dict[str, int] = {}  # Ray Tune's trial id -> number in the record

    def suggest(self, trial_id: str) -> Any:
        """The configuration of the next trial, as `run_trial` takes it."""
        trial = self._record.next_trial()
        if trial is None:
            return ray.tune.search.Searcher.FINISHED
        self._running[trial_id] = trial.number
        self._write()
        self._report_progress("")
        values = trial_values(self._config.align, trial.settings, trial.output)
        return {"align": values, "registry": self._registry}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Show a validation of a running trial."""
        if SCORE in result:
            number = self._running[trial_id]
            self._report_progress(f"trial {number} at step {result['step']}: {result[SCORE]:.3f}")

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record a trial that finished, was stopped by the scheduler, or failed."""
        number = self._running.pop(trial_id)
        output = self._record.trials[number].output
        ended_itself = result is not None and (ERROR in result or FINISHED in result)
        (unregister_run if ended_itself else abort_run)(self._registry, uri(output))
        fetch(output)
        status, message = _outcome(result, error)
        self._record.end_trial(number, status, message)
        self._write()
        self._report_progress(f"trial {number} {status}")

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: `trials.json` is what a search resumes from."""

    def _write(self) -> None:
        self._record.refresh()
        write_outputs(self._config, self._record.trials)

    def _report_progress(self, note: str) -> None:
        best = best_trial(self._record.trials)
        if best is not None:
            note = f"{note}; best {best.score:.3f} (trial {best.number})".removeprefix("; ")
        report = progress_reporter(self._progress_name)
        report(self._record.num_ended, self._record.num_trials, note)


def _outcome(result: dict[str, Any] | None, error: bool) -> tuple[Status, str | None]:
    """Status and error message of a trial, from its last report."""
    if error or result is None:
        return "failed", "its process died; see Ray's log folder"
    if ERROR in result:
        return "failed", result[ERROR]
    return ("finished" if FINISHED in result else "stopped"), None
