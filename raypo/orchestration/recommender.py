"""Training a sequential recommender on a Ray Train worker."""

from __future__ import annotations

from typing import Any

import ray.train
import ray.train.torch
from ray.train import RunConfig, ScalingConfig

from raypo.config import RecommenderConfig, parse_config
from raypo.data.dataset import load_dataset
from raypo.io.files import read_json
from raypo.io.progress import Progress, no_progress
from raypo.io.remote import fetch, ray_storage, remove_ray_records, synced, synced_folders
from raypo.io.run_folder import open_run
from raypo.orchestration.cluster import connect, silence_logs
from raypo.orchestration.progress_actor import progress_actor, progress_reporter
from raypo.recommenders.train import train_recommender

_RECORDS = ".ray-train"  # folder of Ray's own records, removed afterwards


@synced
def train(config: RecommenderConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """Run `train_recommender` on one worker of the cluster, or in this process.

    One worker is enough, as these models are small. Its run folder is the only result.

    Args:
        config: configuration of the stage; its launcher says where to train.
        progress: called after each epoch.

    Raises:
        InputError: as `train_recommender`, where possible before the worker starts.
    """
    if config.launcher == "local" or (config.output / "summary.json").exists():
        return train_recommender(config, progress)
    load_dataset(config.data).require_rows("train", "validation")
    open_run(config.output, config)
    progress(0, config.max_epochs, "starting a worker")
    connect()
    with progress_actor(progress) as actor:
        ray.train.torch.TorchTrainer(
            _worker,
            train_loop_config={"config": config.model_dump(mode="json"), "progress_actor": actor},
            torch_config=ray.train.torch.TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=1, use_gpu=False),
            run_config=RunConfig(name=_RECORDS, **ray_storage(config.output)),
        ).fit()
    remove_ray_records(config.output, _RECORDS)
    fetch(config.output)
    return dict(read_json(config.output / "summary.json"))


def _worker(config: dict[str, Any]) -> None:
    silence_logs()
    parsed = parse_config(RecommenderConfig, config["config"], source="recommender worker")
    with synced_folders(parsed):
        train_recommender(parsed, progress_reporter(config["progress_actor"]))
