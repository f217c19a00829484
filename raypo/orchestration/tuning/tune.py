"""Searching alignment settings with Ray Tune; every trial is an ordinary alignment run.

`trials.json` is what a search resumes from: the same command reads it, gives sampler and scheduler
the trials so far, and lets interrupted trials resume from their own checkpoints. Ray Tune's own
snapshots are not read (`searcher.py` says why).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import ray.tune

from raypo.config import AlignConfig, TuneConfig
from raypo.errors import StoppedRun
from raypo.io.progress import Progress, no_progress
from raypo.io.remote import ray_storage, remove_ray_records, synced
from raypo.orchestration.abort import run_registry
from raypo.orchestration.cluster import connect
from raypo.orchestration.progress_actor import progress_actor
from raypo.orchestration.train import fewest_workers, worker_resources
from raypo.orchestration.tuning.outputs import write_outputs
from raypo.orchestration.tuning.record import SearchRecord
from raypo.orchestration.tuning.scheduler import make_asha
from raypo.orchestration.tuning.search import Search, check_search, open_search
from raypo.orchestration.tuning.searcher import TrialSearcher
from raypo.orchestration.tuning.trial import run_trial
from raypo.orchestration.waiting import room_for

logger = logging.getLogger("raypo")
_RAY_RECORDS = "tune"  # folder of Ray Tune's own records


@synced
def tune(config: TuneConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """Search; the best trial is the one with the best validation HitRatio@1, not the lowest loss.

    Writes `trials.json` (every trial), `best.yaml` (a file that `raypo align --config` takes) and
    `search.html`, after every trial. An interrupted search resumes. A finished one is recognised,
    and continues if it is given more `trials`.

    Args:
        config: of the search.
        progress: called with ended trials and all trials.

    Returns:
        Content of `trials.json`.

    Raises:
        InputError: a key of the space is no setting of alignment, or a value is not allowed.
        StoppedRun: every trial failed.
    """
    search = check_search(config)
    record = SearchRecord(search.sampler, config.output, open_search(search.config))
    if record.num_left:
        _run_trials(search, record, progress)
    record.refresh()
    content = write_outputs(search.config, record.trials)
    failed = [trial.error for trial in record.trials if trial.status == "failed"]
    if len(failed) == len(record.trials):
        raise StoppedRun(f"every trial failed; the first with: {failed[0]}")
    return content


def _run_trials(search: Search, record: SearchRecord, progress: Progress) -> None:
    config = search.config
    connect(_num_processes(config))
    search = replace(search, config=_with_room(config))
    config = search.config
    with progress_actor(progress) as progress_name, run_registry() as registry:
        searcher = TrialSearcher(config, record, progress_name, registry)
        ray.tune.Tuner(
            ray.tune.with_resources(run_trial, _resources(config.align)),
            tune_config=_tune_config(search, searcher, record),
            run_config=ray.tune.RunConfig(
                name=_RAY_RECORDS, verbose=0, **ray_storage(config.output)
            ),
        ).fit()
    remove_ray_records(config.output, _RAY_RECORDS)


def _tune_config(
    search: Search, searcher: TrialSearcher, record: SearchRecord
) -> ray.tune.TuneConfig:
    config = search.config
    halving = config.scheduler == "asha"
    return ray.tune.TuneConfig(
        search_alg=searcher,
        scheduler=make_asha(config.asha, search.total_steps, record.trials) if halving else None,
        num_samples=record.num_left,
        max_concurrent_trials=config.max_concurrent_trials,
        trial_dirname_creator=_folder_name,
        # A process that is used again has imported everything; a stopped trial's must end.
        reuse_actors=not halving,
    )


def _with_room(config: TuneConfig) -> TuneConfig:
    """The search with as many trials at a time as the cluster has room for, at least one.

    A trial beyond that would wait for another's cores, as long as that one trains.
    """
    cluster = config.align.cluster
    trial = [worker_resources(cluster)] * fewest_workers(cluster.workers)
    room = max(1, room_for(trial))
    if room >= config.max_concurrent_trials:
        return config
    logger.warning(
        "max_concurrent_trials %d: the cluster has room for %d, which run at a time",
        config.max_concurrent_trials,
        room,
    )
    return config.model_copy(update={"max_concurrent_trials": room})


def _resources(align: AlignConfig) -> dict[str, float]:
    """What a trial itself reserves.

    The workers of a trial's alignment reserve the cores. The trial only waits for them, and must
    not reserve a part of what they need. Ray requires some resource: a mebibyte of memory.
    """
    if align.cluster.launcher == "local":
        return {"CPU": align.cluster.cpus_per_worker, "GPU": align.cluster.gpus_per_worker}
    return {"CPU": 0, "memory": 1 << 20}


def _num_processes(config: TuneConfig) -> int:
    """At a time: per trial its workers, itself, Ray Train's three, and as many that are ending."""
    return 2 * config.max_concurrent_trials * (config.align.cluster.most_workers + 4)


def _folder_name(trial: ray.tune.experiment.Trial) -> str:
    return f"trial_{trial.trial_id}"
