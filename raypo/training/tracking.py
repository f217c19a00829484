"""TensorBoard files of every training run, and MLflow on request.

They show the metrics of `metrics.jsonl`, which remains the run's own record.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from raypo.errors import InputError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient
    from tensorboardX import SummaryWriter


class Trackers:
    """Metrics of a run in TensorBoard and MLflow. Only rank 0 constructs it."""

    def __init__(self, folder: Path, step: int, mlflow_uri: str | None = None) -> None:
        """Open the run's files.

        Args:
            folder: run folder; TensorBoard's files go into its `tensorboard/`.
            step: step that the run resumes from, 0 at the start. Points after it are hidden.
            mlflow_uri: tracking URI of MLflow; None does without.
        """
        self._tensorboard = _tensorboard_writer(folder, step)
        self._mlflow = _mlflow_run(mlflow_uri, folder) if mlflow_uri else None

    def log(self, values: Mapping[str, Any]) -> None:
        """Log the metrics of the step that `values["step"]` names."""
        step = int(values["step"])
        numbers = {
            key: float(value)
            for key, value in values.items()
            if key != "step" and isinstance(value, int | float)
        }
        if self._tensorboard is not None:
            for key, value in numbers.items():
                self._tensorboard.add_scalar(key, value, step)
            self._tensorboard.flush()
        if self._mlflow is not None:
            client, run = self._mlflow
            for key, value in numbers.items():
                client.log_metric(run, key.replace("@", "-at-"), value, step=step)

    def close(self) -> None:
        """Close the files and mark the run as finished."""
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._mlflow is not None:
            client, run = self._mlflow
            client.set_terminated(run)


def check_mlflow(uri: str | None) -> None:
    """Check that MLflow can be used, before anything is started.

    Raises:
        InputError: MLflow is not installed, or its URI holds a password.
    """
    if uri is None:
        return
    if "@" in urlsplit(uri).netloc:
        raise InputError(
            "mlflow: the URI holds a password, which would be stored in config.yaml; give "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment instead"
        )
    try:
        import mlflow  # noqa: F401
    except ImportError:
        raise InputError(
            "mlflow: not installed; `pip install raypo[mlflow]` brings it, or leave the setting out"
        ) from None


def _tensorboard_writer(folder: Path, step: int) -> SummaryWriter | None:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:  # a machine without Ray may have torch, transformers and peft alone
        return None
    # A resumed run repeats steps: their points are written again, and the old ones hidden.
    purge = {"purge_step": step + 1} if step else {}
    # File names hold the second: a run resumed within it would overwrite the file before.
    suffix = f".from-step-{step}"
    return SummaryWriter(logdir=str(folder / "tensorboard"), filename_suffix=suffix, **purge)


def _mlflow_run(uri: str, folder: Path) -> tuple[MlflowClient, str]:
    """The client, and the id of this folder's run, which a resumed run shares."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("raypo")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("raypo")
    path = str(folder.resolve())
    existing = client.search_runs([experiment_id], f"tags.`raypo.folder` = '{path}'")
    if existing:
        return client, str(existing[0].info.run_id)
    tags = {"raypo.folder": path, "mlflow.runName": folder.name}
    return client, str(client.create_run(experiment_id, tags=tags).info.run_id)
