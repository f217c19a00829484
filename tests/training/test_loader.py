"""Batches that are made ahead are those that are made when they are asked for."""

import functools
import threading

import pytest

from raypo.assets import tiny_random
from raypo.config import AlignConfig, parse_config
from raypo.errors import InputError
from raypo.io.run_folder import read_metrics
from raypo.training import job, negatives_and_reference, trainer
from raypo.training.loader import BatchLoader
from raypo.training.local import train_locally
from tests.training.inputs import settings
from tests.training.step_ranks import Cut, make_job
from tests.training.test_resume import without_timing

pytestmark = pytest.mark.slow


class Watched:
    """A maker of batches that records who asks for which rows, and fails for some."""

    def __init__(self, make_batch, fails_for=()):
        self.encoder = make_batch.encoder
        self.made: list[tuple[list[int], str]] = []
        self._make_batch, self._fails_for = make_batch, set(fails_for)

    def __call__(self, epoch, rows):
        self.made.append((rows, threading.current_thread().name))
        if self._fails_for & set(rows):
            raise InputError("a prompt does not fit")
        return self._make_batch(epoch, rows)


@pytest.fixture
def watched():
    """A job of two steps, each with two micro-batches of two users and one of one."""
    made = make_job(Cut("s-dpo", 5, 2, 1), 0, tiny_random())
    made.make_batch = Watched(made.make_batch)
    return made


def rows_of(job, step):
    _, global_batches = job.sampler.rank_batches(step, 0)
    return [rows for parts in global_batches for rows in parts]


def test_the_next_step_is_made_on_another_thread_without_being_asked_for(watched):
    with BatchLoader(watched, prefetches=True) as loader:
        first = loader(0)
        loader.wait()
        made = list(watched.make_batch.made)
        second = loader(1)
        assert watched.make_batch.made == made  # step 1 was there, and there is no step 2
    main = threading.current_thread().name
    assert [rows for rows, _ in made] == rows_of(watched, 0) + rows_of(watched, 1)
    assert [name == main for _, name in made] == [True] * 3 + [False] * 3
    for step, batches in enumerate([first, second]):
        (one,) = batches.global_batches
        assert one.counts == [2, 2, 1]
        keys = [[row for _, row in batch.keys] for batch in one.micro_batches]
        assert keys == rows_of(watched, step)


def test_without_prefetching_a_step_is_made_when_it_is_asked_for(watched):
    with BatchLoader(watched) as loader:  # the policy is on a CPU
        loader(0)
        loader.wait()
        assert [rows for rows, _ in watched.make_batch.made] == rows_of(watched, 0)


def test_a_row_that_cannot_be_read_stops_the_run_at_its_own_step(watched):
    watched.make_batch = Watched(watched.make_batch, fails_for=rows_of(watched, 1)[0])
    with BatchLoader(watched, prefetches=True) as loader:
        loader(0)
        with pytest.raises(InputError, match="does not fit"):
            loader(1)


@pytest.mark.parametrize("sources", ["uniform", "self-play"])
def test_a_run_has_the_same_metrics_with_batches_made_ahead(inputs, tmp_path, monkeypatch, sources):
    """Rounds of self-play too, whose negatives are only known when the round begins."""
    monkeypatch.setattr(negatives_and_reference, "cache_folder", lambda: tmp_path / "cache")
    data, recommender, adapter = inputs
    threads = set()
    draw = job.BatchMaker.__call__

    def recorded(self, epoch, rows):
        threads.add(threading.current_thread().name.rpartition("_")[0])
        return draw(self, epoch, rows)

    monkeypatch.setattr(job.BatchMaker, "__call__", recorded)
    for prefetches in (False, True):
        threads.clear()
        monkeypatch.setattr(
            trainer, "BatchLoader", functools.partial(BatchLoader, prefetches=prefetches)
        )
        values = settings(data, tmp_path / str(prefetches)) | {"recommender": recommender}
        values["policy"] = values["policy"] | {"adapter": adapter}
        values |= {"objective": {"name": "s-dpo"}, "negatives": 3, "negative_sampling": sources}
        values |= {"negative_options": {"self_play_rounds": 3}} if sources == "self-play" else {}
        train_locally(parse_config(AlignConfig, values, "test"))
        assert ("batches" in threads) == prefetches
    plain, ahead = (read_metrics(tmp_path / name) for name in ("False", "True"))
    assert len(plain) == 12
    for one, other in zip(plain, ahead, strict=True):
        assert without_timing(other) == pytest.approx(without_timing(one), rel=1e-6)
