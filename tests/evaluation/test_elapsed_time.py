"""Seconds of answering over several calls."""

import pytest

from raypo.evaluation import elapsed_time
from raypo.evaluation.elapsed_time import ElapsedTime


def test_a_call_goes_on_from_what_the_last_one_wrote_down(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(elapsed_time.time, "monotonic", lambda: now[0])
    file = tmp_path / "partial" / "likelihood.spent.json"
    first = ElapsedTime(file)
    now[0] += 0.5
    first.keep()
    assert not file.exists()  # too soon after the start
    now[0] += 2.0
    first.keep()
    now[0] += 7.0  # killed: nobody wrote these down
    second = ElapsedTime(file)
    now[0] += 1.5
    assert second.seconds == pytest.approx(2.5 + 1.5)
