"""The life of a run: finished and stopped ones, and what each rank reports."""

import contextlib
import json

import pytest

from raypo.config import SftConfig, parse_config
from raypo.errors import InputError, StoppedRun
from raypo.io.files import write_json
from raypo.io.progress import no_progress
from raypo.io.run_folder import open_run, read_metrics
from raypo.training.job import check_inputs
from raypo.training.local import FolderCheckpoints
from raypo.training.reporter import Reporter
from raypo.training.run import run_rank, run_training

from .inputs import settings

VALIDATED = "validation/HitRatio@1"


@pytest.fixture
def config(tmp_path):
    return parse_config(SftConfig, settings(tmp_path / "data", tmp_path / "run"), "test")


class Memory:
    """A checkpoint store that keeps the metrics of its checkpoints."""

    def __init__(self):
        self.saved = []

    @contextlib.contextmanager
    def newest(self):
        yield None

    def save(self, metrics, write):
        self.saved.append(metrics)


def test_a_finished_run_is_recognised_and_nothing_is_launched(config):
    open_run(config.output, config)
    write_json(config.output / "summary.json", {"best_step": 4})

    def launch(*_):
        raise AssertionError("launched")

    assert run_training(config, launch) == {"best_step": 4}


def test_a_rank_of_a_stopped_run_stops_again_with_the_same_message(config):
    open_run(config.output, config)
    write_json(config.output / "stopped.json", {"message": "step 6: the loss is nan"})
    with pytest.raises(StoppedRun, match="step 6: the loss is nan"):
        run_rank(config, 1, Memory(), no_progress)


def test_rank_0_alone_writes_metrics_and_every_rank_saves_checkpoints(tmp_path):
    stores = [Memory(), Memory()]
    reporters = [Reporter(tmp_path, rank, store) for rank, store in enumerate(stores)]
    for reporter in reporters:
        reporter.start(0, None)
        reporter.metrics({"step": 1, "loss": 2.0})
        reporter.checkpoint({"step": 2, "loss": 1.0, VALIDATED: 0.5}, lambda folder: None)
        reporter.finish()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]
    assert [len(store.saved) for store in stores] == [1, 1]
    assert (tmp_path / "tensorboard").is_dir()


def test_a_resumed_run_forgets_the_metrics_of_steps_that_it_repeats(tmp_path):
    first = Reporter(tmp_path, 0, Memory())
    first.start(0, None)
    for step in range(1, 6):
        first.metrics({"step": step})
    Reporter(tmp_path, 1, Memory()).start(3, None)
    assert len(read_metrics(tmp_path)) == 5
    Reporter(tmp_path, 0, Memory()).start(3, None)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]


def test_any_rank_keeps_a_bad_batch(tmp_path):
    file = Reporter(tmp_path, 1, Memory()).bad_batch({"step": 12, "rank": 1, "users": []})
    assert file.name == "bad-batch-step-00000012-rank-1.json"
    assert json.loads(file.read_text()) == {"step": 12, "rank": 1, "users": []}


def test_a_folder_keeps_the_best_checkpoint_and_the_last(tmp_path):
    store = FolderCheckpoints(tmp_path)
    reporter = Reporter(tmp_path, 0, store)
    for step, score in ((1, 0.2), (2, 0.5), (3, 0.5), (4, 0.1)):
        reporter.checkpoint({"step": step, VALIDATED: score}, lambda _: None)
    kept = sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000002", "step-00000004"]
    assert store.best().name == "step-00000002"  # the earliest of equals


GPUS = {"workers": 2, "gpus_per_worker": 1, "zero_stage": 2}


@pytest.mark.parametrize(
    ("policy", "cluster", "message"),
    [
        ({"quantisation": "4bit"}, {}, r"policy\.quantisation: 4-bit weights need a GPU"),
        ({"quantisation": "4bit"}, GPUS | {"zero_stage": 3}, r"4-bit weights cannot be part"),
        ({"head_kernel": "triton"}, {}, r"policy\.head_kernel: triton needs a GPU"),
        ({"head_kernel": "triton"}, GPUS | {"zero_stage": 3}, r"zero_stage=3 partitions"),
        ({"compile_layers": True}, {}, r"policy\.compile_layers: compiling pays on GPUs"),
        (
            {"compile_layers": True},
            GPUS | {"zero_stage": 3},
            r"compile_layers: weights that are",
        ),
        ({"offload_activations": True}, {}, r"policy\.offload_activations: activations are in"),
        (
            {"offload_activations": True, "gradient_checkpointing": False},
            GPUS,
            r"policy\.offload_activations is of recomputed layers",
        ),
    ],
)
def test_settings_that_the_cluster_cannot_follow_are_refused(
    inputs, tmp_path, policy, cluster, message
):
    values = settings(inputs[0], tmp_path / "run")
    values["policy"] = values["policy"] | policy
    values["cluster"] = cluster
    with pytest.raises(InputError, match=message):
        check_inputs(parse_config(SftConfig, values, "test"))
