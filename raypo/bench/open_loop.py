"""Requests that arrive whether earlier ones are answered or not, and how long each takes.

A closed loop, which waits for answers before it asks again, hides queues: a server that is too slow
is simply asked less often.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_MOST_LOWER = 4  # rates below the first one


@dataclass(frozen=True)
class Load:
    """Requests of one rate, answered in batches of those that wait.

    Attributes:
        rate: requests a second on average; the times between them are exponential.
        num_requests: how many arrive.
        max_batch: answered together, at most.
        seed: of the arrivals.
    """

    rate: float
    num_requests: int
    max_batch: int
    seed: int = 0


def run_open_loop(load: Load, answer: Callable[[range], None]) -> np.ndarray:
    """Seconds [num_requests] between each request's arrival and its answer.

    One server takes the requests that have arrived, up to `max_batch`, and then the next ones.

    Args:
        load: what arrives.
        answer: answers requests by their numbers.
    """
    gaps = np.random.default_rng(load.seed).exponential(1 / load.rate, load.num_requests)
    arrivals = np.cumsum(gaps)
    latencies = np.empty(load.num_requests)
    started = time.perf_counter()
    first = 0
    while first < load.num_requests:
        now = time.perf_counter() - started
        if arrivals[first] > now:
            time.sleep(arrivals[first] - now)
            continue
        waiting = int(np.searchsorted(arrivals, now, side="right")) - first
        last = first + min(waiting, load.max_batch)
        answer(range(first, last))
        latencies[first:last] = time.perf_counter() - started - arrivals[first:last]
        first = last
    return latencies


@dataclass(frozen=True)
class Search:
    """A search for the highest rate that a bound on the 99th percentile allows.

    Attributes:
        bound_s: of the 99th percentile.
        first_rate: requests a second to begin with.
        growth: factor between rates.
        seconds: of each rate, at least; and at least `fewest` requests.
        fewest: requests of a rate.
        max_batch: answered together, at most.
        seed: of the arrivals.
    """

    bound_s: float
    first_rate: float = 0.25
    growth: float = 1.5
    seconds: float = 20
    fewest: int = 30
    max_batch: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Percentiles:
    """Latencies at one rate."""

    rate: float
    num_requests: int
    p50: float
    p95: float
    p99: float


def search_rate(
    search: Search, answer: Callable[[range], None], report: Callable[[Percentiles], None]
) -> list[Percentiles]:
    """Latencies at growing rates, until the 99th percentile is beyond the bound.

    Where the first one is beyond, lower ones follow until one is not, `_MOST_LOWER` at most.

    Args:
        search: what to try.
        answer: answers requests by their numbers, which begin at 0 for each rate.
        report: receives each rate's result.
    """
    found = [_at_rate(search, search.first_rate, answer, report)]
    if found[0].p99 > search.bound_s:
        for _ in range(_MOST_LOWER):
            lower = found[0].rate / search.growth
            found.insert(0, _at_rate(search, lower, answer, report))
            if found[0].p99 <= search.bound_s:
                break
        return found
    while found[-1].p99 <= search.bound_s:
        found.append(_at_rate(search, found[-1].rate * search.growth, answer, report))
    return found


def _at_rate(
    search: Search,
    rate: float,
    answer: Callable[[range], None],
    report: Callable[[Percentiles], None],
) -> Percentiles:
    count = max(search.fewest, round(rate * search.seconds))
    latencies = run_open_loop(Load(rate, count, search.max_batch, search.seed), answer)
    p50, p95, p99 = np.percentile(latencies, (50, 95, 99))
    found = Percentiles(rate, count, float(p50), float(p95), float(p99))
    report(found)
    return found


def highest_rate(found: list[Percentiles], bound_s: float) -> float:
    """The highest rate within the bound, 0.0 where none is.

    Between the last rate within it and the first beyond, p99 is taken to grow in proportion.
    """
    best, previous = 0.0, None
    for one in found:
        if one.p99 > bound_s:
            if previous is not None:
                share = (bound_s - previous.p99) / (one.p99 - previous.p99)
                best = previous.rate + share * (one.rate - previous.rate)
            break
        best, previous = one.rate, one
    return best
