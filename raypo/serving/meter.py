"""Figures of requests for Prometheus."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from raypo.serving.problems import ProblemError


class Meter:
    """Counts requests and their time for Prometheus."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "raypo_requests", "Requests by outcome", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "raypo_request_seconds", "Time of answered requests", ["route"], registry=self._registry
        )

    def measured(self, route: str) -> _Measured:
        """A block whose outcome and time are counted."""
        return _Measured(self, route)

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        if status == 200:
            self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)


class _Measured:
    def __init__(self, meter: Meter, route: str) -> None:
        self._meter, self._route = meter, route

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        status = 200
        if error is not None:
            status = error.status if isinstance(error, ProblemError) else 500
        self._meter.count(self._route, status, time.perf_counter() - self._started)
