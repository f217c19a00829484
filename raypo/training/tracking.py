"""TensorBoard files of every training run, and MLflow where it is asked for.

They show what `metrics.jsonl` holds, which stays the run's own record.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raypo.config import InputError


class Trackers:
    """Writes a run's metrics for viewers; made by the first worker alone."""

    def __init__(self, folder: Path, step: int, mlflow_uri: str | None = None) -> None:
        """Open the run's files.

        Args:
            folder: the run folder; TensorBoard's files go to `tensorboard/` inside.
            step: that a resumed run goes on behind; what lies after it is hidden. 0 at the start.
            mlflow_uri: tracking URI of MLflow; None does without.
        """
        self._board: Any = _board(folder, step)
        self._mlflow: Any = _mlflow_run(mlflow_uri, folder) if mlflow_uri else None

    def log(self, values: Mapping[str, Any]) -> None:
        """Add one line of metrics; `step` says where."""
        step = int(values["step"])
        numbers = {
            key: float(value)
            for key, value in values.items()
            if key != "step" and isinstance(value, int | float)
        }
        if self._board is not None:
            for key, value in numbers.items():
                self._board.add_scalar(key, value, step)
            self._board.flush()
        if self._mlflow is not None:
            client, run = self._mlflow
            for key, value in numbers.items():
                client.log_metric(run, key.replace("@", "-at-"), value, step=step)

    def close(self) -> None:
        """Finish the files; the run is marked as finished."""
        if self._board is not None:
            self._board.close()
        if self._mlflow is not None:
            client, run = self._mlflow
            client.set_terminated(run)


def check_mlflow(uri: str | None) -> None:
    """Refuse a run that wants MLflow where it is not installed, before anything is started."""
    if uri is None:
        return
    if "@" in urlsplit(uri).netloc:
        raise InputError(
            "mlflow: the URI holds a password, which would stand in config.yaml; give "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment instead"
        )
    try:
        import mlflow  # noqa: F401
    except ImportError:
        raise InputError(
            "mlflow: not installed; `pip install raypo[mlflow]` brings it, or leave the setting out"
        ) from None


def _board(folder: Path, step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:  # a lone GPU box may have torch, transformers and peft alone
        return None
    # Lines of steps that a resumed run takes again are written again, and the old ones hidden.
    purge = {"purge_step": step + 1} if step else {}
    # Files are named by the second: a run resumed within it would write over the one before.
    suffix = f".from-step-{step}"
    return SummaryWriter(logdir=str(folder / "tensorboard"), filename_suffix=suffix, **purge)


def _mlflow_run(uri: str, folder: Path) -> tuple[Any, str]:
    """The client, and the run of this folder: a resumed one goes on in its own."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("raypo")
    number = experiment.experiment_id if experiment else client.create_experiment("raypo")
    place = str(folder.resolve())
    known = client.search_runs([number], f"tags.`raypo.folder` = '{place}'")
    if known:
        return client, str(known[0].info.run_id)
    tags = {"raypo.folder": place, "mlflow.runName": folder.name}
    return client, str(client.create_run(number, tags=tags).info.run_id)
