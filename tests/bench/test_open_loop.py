"""An open loop: requests arrive whether earlier ones are answered or not."""

from __future__ import annotations

import time

import numpy as np
import pytest

from raypo.bench.open_loop import (
    Load,
    Percentiles,
    Search,
    highest_rate,
    run_open_loop,
    search_rate,
)


def arrivals(load: Load) -> np.ndarray:
    gaps = np.random.default_rng(load.seed).exponential(1 / load.rate, load.num_requests)
    return np.cumsum(gaps)


def test_a_slow_server_is_not_asked_less_and_its_queue_counts() -> None:
    load = Load(rate=100, num_requests=40, max_batch=4)
    batches: list[range] = []

    def answer(numbers: range) -> None:
        batches.append(numbers)
        time.sleep(0.08)  # 50 requests a second at most, half of what arrives

    latencies = run_open_loop(load, answer)
    assert [number for batch in batches for number in batch] == list(range(40))
    assert max(map(len, batches)) == 4
    finished = 0.08 * len(batches) + arrivals(load)[0]
    assert latencies[-1] >= finished - arrivals(load)[-1] - 0.02
    assert latencies[-1] > 3 * latencies[0] > 0.2


def test_an_idle_server_waits_for_requests() -> None:
    load = Load(rate=50, num_requests=10, max_batch=4)
    started = time.perf_counter()
    latencies = run_open_loop(load, lambda numbers: None)
    assert time.perf_counter() - started >= arrivals(load)[-1]
    assert latencies.min() >= 0 and np.median(latencies) < 0.2


def test_rates_grow_until_the_bound_is_passed() -> None:
    seen: list[Percentiles] = []
    search = Search(0.5, first_rate=50, growth=4, seconds=0.1, fewest=20, max_batch=1)
    found = search_rate(search, lambda numbers: time.sleep(0.01), seen.append)
    assert found == seen and [one.rate for one in found] == [50 * 4**n for n in range(len(found))]
    assert found[-1].p99 > 0.5 and all(one.p99 <= 0.5 for one in found[:-1])


def test_rates_fall_where_the_first_is_beyond_the_bound() -> None:
    seen: list[Percentiles] = []
    search = Search(0.1, first_rate=200, growth=8, seconds=0.1, fewest=20, max_batch=1)
    found = search_rate(search, lambda numbers: time.sleep(0.02), seen.append)
    # A busy machine may need a lower rate yet; none is tried that is not needed.
    assert [one.rate for one in found][::-1] == [200 / 8**n for n in range(len(found))]
    assert seen == found[::-1] and len(found) > 1
    assert found[0].p99 <= 0.1 < min(one.p99 for one in found[1:])


def test_the_highest_rate_lies_between_the_last_within_the_bound_and_the_first_beyond() -> None:
    def at(rate: float, p99: float) -> Percentiles:
        return Percentiles(rate, 10, 0, 0, p99)

    assert highest_rate([at(1, 2), at(2, 4), at(4, 8)], 5) == pytest.approx(2.5)
    assert highest_rate([at(1, 9)], 5) == 0.0
    assert highest_rate([at(1, 2), at(2, 4)], 5) == 2
