"""Searching alignment settings with Ray Tune; every trial is an ordinary alignment run.

`trials.json` is the search's memory: it is written at every proposal and every end. The same
command finds it again, feeds sampler and scheduler with what they saw, and lets trials that were
interrupted go on from their own checkpoints. Tune's own snapshots are not read: it does not restore
all of a scheduler's state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import ray.tune
import yaml
from ray.tune.schedulers import ASHAScheduler

from raypo.config import (
    AlignConfig,
    InputError,
    StoppedRun,
    TuneConfig,
    dump_config,
    parse_config,
    with_settings,
)
from raypo.config.paths import uri
from raypo.evaluation.search_report.page import write_search_report
from raypo.evaluation.search_report.trials import (
    Trial,
    best_trial,
    read_lines,
    read_trials,
    write_trials,
)
from raypo.io.files import read_json, write_text
from raypo.io.progress import Progress, no_progress
from raypo.io.remote import fetch, push_file, ray_storage, remove_ray_records, synced
from raypo.io.run_folder import open_run
from raypo.orchestration.abort import abort_run, run_registry, unregister_run
from raypo.orchestration.cluster import connect
from raypo.orchestration.progress_actor import progress_actor, progress_reporter
from raypo.orchestration.tuning.sampler import Observation, number_of_trials, propose
from raypo.orchestration.tuning.search_space import check_space
from raypo.orchestration.tuning.trial import ERROR, FINISHED, run_trial
from raypo.training.batches import Plan
from raypo.training.job import check_inputs
from raypo.training.trainer import SCORE

_TUNES_OWN = "tune"  # folder of Tune's records, which nobody reads


@synced
def tune(config: TuneConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """Search; the best trial is the one with the best validation HitRatio@1, not the lowest loss.

    Writes `trials.json` (every trial), `best.yaml` (a file that `raypo align --config` takes) and
    `search.html`, after every trial. An interrupted search goes on; a finished one is recognised,
    and goes on where it is given more `trials`.

    Returns:
        Content of `trials.json`.

    Raises:
        InputError: a key of the space is no setting of alignment, or a value is not allowed.
        StoppedRun: every trial failed.
    """
    config = config.model_copy(update={"space": check_space(config)})
    _, plan = check_inputs(config.align)
    _check(config, plan)
    _take_more_trials(config)
    open_run(config.output, config)
    trials = [_tried_again(trial) for trial in read_trials(config.output / "trials.json")]
    search = _Search(config, trials)
    if search.left:
        connect(_processes(config))
        with progress_actor(progress) as search.board, run_registry() as search.desk:
            _tuner(config, search, plan).fit()
        remove_ray_records(config.output, _TUNES_OWN)
    search.write()
    failed = [trial.error for trial in search.trials if trial.status == "failed"]
    if len(failed) == len(search.trials):
        raise StoppedRun(f"every trial failed; the first with: {failed[0]}")
    return dict(read_json(config.output / "trials.json"))


def _check(config: TuneConfig, plan: Plan) -> None:
    cluster = config.align.cluster
    if cluster.launcher == "local" and cluster.workers != 1:
        raise InputError(
            f"align.cluster.workers: launcher local runs 1 in each trial, got {cluster.workers}"
        )
    if config.scheduler == "none":
        return
    first = max(config.align.validation.eval_steps, config.asha.grace_steps)
    if first >= plan.total_steps:
        raise InputError(
            f"scheduler asha: a run has {plan.total_steps} steps, and could first be stopped at "
            f"step {first}; lower asha.grace_steps or align.validation.eval_steps"
        )


def _take_more_trials(config: TuneConfig) -> None:
    """A search in the same folder may be given more trials, or more at a time."""
    file = config.output / "config.yaml"
    if not file.exists():
        return
    before = yaml.safe_load(file.read_text(encoding="utf-8"))
    now = config.model_dump(mode="json")
    free = ("trials", "max_concurrent_trials")
    same = {key: value for key, value in now.items() if key not in free}
    if {key: value for key, value in before.items() if key not in free} == same:
        write_text(file, dump_config(config))


def _tried_again(trial: Trial) -> Trial:
    """A failed trial, unless it left a batch whose loss is not a number: it would do so again."""
    if trial.status == "failed" and not any(trial.output.glob("offending-step-*")):
        return replace(trial, status="running", error=None)
    return trial


def _tuner(config: TuneConfig, search: _Search, plan: Plan) -> ray.tune.Tuner:
    return ray.tune.Tuner(
        ray.tune.with_resources(run_trial, _resources(config.align)),
        tune_config=ray.tune.TuneConfig(
            search_alg=search,
            scheduler=_scheduler(config, plan, search.trials),
            num_samples=search.left,
            max_concurrent_trials=config.max_concurrent_trials,
            trial_dirname_creator=_folder_name,
            # A process that is used again has imported everything; a stopped trial's must end.
            reuse_actors=config.scheduler == "none",
        ),
        run_config=ray.tune.RunConfig(name=_TUNES_OWN, verbose=0, **ray_storage(config.output)),
    )


def _resources(align: AlignConfig) -> dict[str, float]:
    """What a trial itself holds.

    The workers of a trial's alignment take the cores; the trial only waits for them, and must not
    hold a part of what they need. Ray wants it to hold something: a mebibyte of memory.
    """
    if align.cluster.launcher == "local":
        return {"CPU": align.cluster.cpus_per_worker, "GPU": align.cluster.gpus_per_worker}
    return {"CPU": 0, "memory": 1 << 20}


def _processes(config: TuneConfig) -> int:
    """At a time: per trial its workers, itself, Ray Train's three, and as many on their way out."""
    return 2 * config.max_concurrent_trials * (config.align.cluster.most_workers + 4)


def _folder_name(trial: Any) -> str:
    return f"trial_{trial.trial_id}"


def _scheduler(config: TuneConfig, plan: Plan, trials: Sequence[Trial]) -> Any:
    """The scheduler, told of what ended trials reported; running ones report again themselves."""
    if config.scheduler == "none":
        return None
    asha = ASHAScheduler(
        time_attr="step",
        metric=SCORE,
        mode="max",
        max_t=plan.total_steps,
        grace_period=config.asha.grace_steps,
        reduction_factor=config.asha.reduction_factor,
        # Else a trial that passed a halving would be compared again, later, with earlier scores.
        stop_last_trials=False,
    )
    for trial in trials:
        if not trial.ended:
            continue
        known = SimpleNamespace(trial_id=f"before-{trial.number}")
        asha.on_trial_add(None, known)
        for line in trial.lines:
            if SCORE in line and line["step"] < plan.total_steps:
                asha.on_trial_result(None, known, dict(line))
    return asha


class _Search(ray.tune.search.Searcher):  # type: ignore[misc]
    """The list of trials, as Tune asks for them and tells what became of them.

    Tune pickles it, so it holds plain values and knows the board by name alone.
    """

    def __init__(self, config: TuneConfig, trials: Sequence[Trial]) -> None:
        super().__init__()
        self.trials = list(trials)
        self.board = self.desk = ""  # names of what the driver and trials share
        self._config = config
        self._again = [trial.number for trial in trials if not trial.ended]
        self._total = number_of_trials(config.space, config.sampler, config.trials)
        self._running: dict[str, int] = {}  # Tune's name of a trial -> our number

    @property
    def left(self) -> int:
        """How many trials are still to be run; 0 too where there is nothing new to propose."""
        new = max(0, self._total - len(self.trials))
        if not self._again and new and self._proposal() is None:
            return 0
        return len(self._again) + new

    def suggest(self, trial_id: str) -> Any:
        """Settings of an interrupted trial, then new ones."""
        if self._again:
            number = self._again.pop(0)
        else:
            settings = self._proposal()
            if settings is None:
                return ray.tune.search.Searcher.FINISHED
            number = len(self.trials)
            output = self._config.output / "trials" / f"{number:03}"
            self.trials.append(Trial(number, settings, output))
            self.write()
        self._running[trial_id] = number
        self._tell("")
        return {"align": self._values(self.trials[number]), "desk": self.desk}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A validation of a trial that goes on."""
        if SCORE in result:
            number = self._running[trial_id]
            self._tell(f"trial {number} at step {result['step']}: {result[SCORE]:.3f}")

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial has come to its end, was stopped by the scheduler, or has failed."""
        number = self._running.pop(trial_id)
        trial = self.trials[number]
        by_itself = result is not None and (ERROR in result or FINISHED in result)
        (unregister_run if by_itself else abort_run)(self.desk, uri(trial.output))
        fetch(trial.output)
        trial = read_lines(trial)
        if error or result is None:
            message = "its process died; Ray's log folder says more"
            trial = replace(trial, status="failed", error=message)
        elif ERROR in result:
            trial = replace(trial, status="failed", error=result[ERROR])
        else:
            trial = replace(trial, status="finished" if FINISHED in result else "stopped")
        self.trials[number] = trial
        self.write()
        self._tell(f"trial {number} {trial.status}")

    def write(self) -> None:
        """Everything that is known by now into the search's folder."""
        config, rows = self._config, self._config.align.validation.max_rows
        self.trials = [read_lines(trial) if trial.ended else trial for trial in self.trials]
        write_trials(config.output / "trials.json", self.trials, rows)
        best = best_trial(self.trials)
        if best is not None:
            values = self._values(best) | {"output": uri(config.align.output)}
            text = dump_config(parse_config(AlignConfig, values, source="best trial"))
            write_text(config.output / "best.yaml", text)
        write_search_report(config.output / "search.html", config, self.trials)
        for name in ("trials.json", "best.yaml", "search.html"):
            if (config.output / name).exists():
                push_file(config.output / name)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: `trials.json` is the memory."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""

    def _values(self, trial: Trial) -> dict[str, Any]:
        values = with_settings(
            self._config.align.model_dump(mode="json"), trial.settings, source="space"
        )
        return values | {"output": uri(trial.output)}

    def _proposal(self) -> dict[str, Any] | None:
        tried = [
            Observation(
                trial.settings, None if trial.status == "failed" else trial.score, trial.ended
            )
            for trial in self.trials
        ]
        config = self._config
        return propose(config.space, config.sampler, config.seed, tried, config.trials)

    def _tell(self, note: str) -> None:
        best = best_trial(self.trials)
        if best is not None:
            note = f"{note}; best {best.score:.3f} (trial {best.number})".removeprefix("; ")
        ended = sum(trial.ended for trial in self.trials)
        progress_reporter(self.board)(ended, self._total, note)
