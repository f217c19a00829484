"""Waiting for cores: what is waited for and who holds it is said, and it ends."""

import os
import threading
import time

import pytest
import ray

from raypo.config import SftConfig, parse_config
from raypo.errors import StoppedRun
from raypo.orchestration import waiting
from raypo.orchestration.cluster import connect
from raypo.orchestration.train import train
from raypo.orchestration.waiting import room_for, wait_for_resources
from tests.training.inputs import settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("shared_ray_of_module"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]
CORES = os.cpu_count()


class Holder:
    """An actor that holds every core of the cluster."""

    def ready(self):
        return True


@pytest.fixture
def holder():
    connect()
    actor = ray.remote(num_cpus=CORES)(Holder).remote()
    ray.get(actor.ready.remote())
    yield actor
    ray.kill(actor)
    wait_for_resources([{"CPU": CORES}], "the next test")


def test_a_stage_says_what_it_waits_for_and_gives_up(holder, inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPO_RESOURCE_TIMEOUT_S", "3")
    monkeypatch.setattr(waiting, "_FIRST_WORD", 1.0)
    monkeypatch.setattr(waiting, "_NEXT_WORDS", 1.0)
    values = settings(inputs[0], tmp_path / "run") | {"cluster": {"workers": 2, "engine": "torch"}}
    notes = []
    with pytest.raises(StoppedRun) as error:
        train(parse_config(SftConfig, values, "test"), lambda d, t, note="": notes.append(note))
    message = str(error.value)
    assert f"training needs 2 x 1 CPU; in use are {CORES} of {CORES} CPU" in message
    assert "Waited 3 s" in message and "RAYPO_RESOURCE_TIMEOUT_S" in message
    assert sum(note.startswith("waiting: training needs 2 x 1 CPU") for note in notes) >= 2
    # The same command runs when the cores are free.
    ray.kill(holder)
    assert train(parse_config(SftConfig, values, "test"))["steps"] == 6


def test_cores_that_become_free_end_the_wait(holder, monkeypatch):
    monkeypatch.setenv("RAYPO_RESOURCE_TIMEOUT_S", "60")
    threading.Timer(2, lambda: ray.kill(holder)).start()
    started = time.monotonic()
    wait_for_resources([{"CPU": 1}] * CORES, "a test")
    assert 1 < time.monotonic() - started < 50
    wait_for_resources([{"CPU": CORES}], "a test")  # nothing is kept


def test_the_room_of_a_cluster_is_counted_by_machine():
    connect()
    assert room_for([{"CPU": CORES}]) == 1
    assert room_for([{"CPU": 1}]) == CORES
    assert room_for([{"CPU": 1}] * (CORES + 1)) == 0
    assert room_for([{"CPU": 1, "GPU": 1}]) == 0
