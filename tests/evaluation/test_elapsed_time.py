"""Elapsed seconds of inference over several calls."""

import pytest

from raypo.evaluation import elapsed_time
from raypo.evaluation.elapsed_time import ElapsedTime


def test_a_call_adds_to_the_seconds_that_the_last_one_saved(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(elapsed_time.time, "monotonic", lambda: now[0])
    file = tmp_path / "partial" / "likelihood.elapsed.json"
    first = ElapsedTime(file)
    now[0] += 0.5
    first.save()
    assert not file.exists()  # too soon after the start
    now[0] += 2.0
    first.save()
    now[0] += 7.0  # killed: these seconds were not saved
    second = ElapsedTime(file)
    now[0] += 1.5
    assert second.seconds == pytest.approx(2.5 + 1.5)
