"""The learning rate over a run."""

import numpy as np
import pytest

from raypo.training.schedule import learning_rate


def test_learning_rate_warms_up_and_decays():
    rates = [learning_rate(step, 100, 1.0, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert np.argmax(rates) in (9, 10)
    assert rates[-1] < 0.001
    assert rates[10:] == sorted(rates[10:], reverse=True)
