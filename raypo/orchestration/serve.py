"""`raypo serve` on Ray Serve: an interface that checks requests, and replicas that rank them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
import torch
from fastapi import FastAPI
from ray import serve
from ray.serve.exceptions import BackPressureError

from raypo.config import parse_config
from raypo.config.serving import Batching, ServeConfig
from raypo.orchestration.cluster import connect, silence_logs
from raypo.serving.answers import Service
from raypo.serving.app import make_app
from raypo.serving.backend import Models, Overloaded, Refused
from raypo.serving.catalogue import Catalogue, read_examples
from raypo.serving.doors import read_token
from raypo.serving.ranker import Question, Ranker, Ranking
from raypo.serving.runs import Served, find_served

APP = "raypo"
_MODELS_KEPT_S = 2.0  # how long the interface takes the list of models for true
_LOGGING = {"enable_access_log": False, "log_level": "WARNING"}
_RETRY_AFTER_S = 0.2  # after a replica died


class _Replica:
    """One base model with its adapters, which ranks the requests that wait together."""

    def __init__(self, served: Served, batching: Batching, cpus: float) -> None:
        silence_logs()
        torch.set_num_threads(max(1, int(cpus)))
        self._ranker = Ranker(served, batching.tokens)
        self._refused: dict[str, str] = {}
        self.rank.set_max_batch_size(batching.users)
        self.rank.set_batch_wait_timeout_s(batching.wait_s)

    async def reconfigure(self, given: dict[str, Any]) -> None:
        """Load and drop adapters, without a restart; one that is broken is refused."""
        folders = given["adapters"]
        adapters = {name: None if at is None else Path(at) for name, at in folders.items()}
        self._refused = await asyncio.to_thread(self._ranker.set_adapters, adapters)

    def models(self) -> Models:
        """The models that are loaded, and those that could not be."""
        return Models(self._ranker.names, self._refused)

    @serve.batch  # type: ignore[untyped-decorator]
    async def rank(self, questions: list[Question]) -> list[Ranking | str]:
        """Answers, or what is wrong with a question."""
        # In a thread, so that the replica goes on answering health checks.
        return await asyncio.to_thread(self._ranker.rank_all, questions)


class _Interface:
    """The HTTP interface, in a process without models."""

    def __init__(self, replicas: Any, served: Served, config: ServeConfig) -> None:
        silence_logs()
        self._service = Service(
            _Replicas(replicas, config.limits.timeout_s),
            Catalogue.of(served.data),
            config.limits,
            config.retrieved,
            read_token(config),
            config.default_model,
            read_examples(served.data),
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_app(self._service)


class _Replicas:
    """The replicas as a backend (`raypo.serving.backend.Backend`)."""

    def __init__(self, handle: Any, timeout_s: float) -> None:
        self._handle, self._timeout_s = handle, timeout_s
        self._models: Models | None = None
        self._read_at = 0.0
        self._reading = asyncio.Lock()

    async def rank(self, question: Question) -> Ranking:
        """See `Backend.rank`; a question whose replica dies is asked again."""
        async with asyncio.timeout(self._timeout_s):
            while True:
                try:
                    answer = await self._handle.rank.remote(question)
                    break
                except BackPressureError:
                    raise Overloaded from None
                except ray.exceptions.RayActorError:
                    await asyncio.sleep(_RETRY_AFTER_S)
        if isinstance(answer, str):
            raise Refused(answer)
        ranking: Ranking = answer
        return ranking

    async def models(self) -> Models:
        """See `Backend.models`."""
        async with self._reading:  # one request asks for all that wait
            if self._models is None or time.monotonic() - self._read_at > _MODELS_KEPT_S:
                try:
                    found: Models = await self._handle.models.remote()
                except (BackPressureError, ray.exceptions.RayActorError):
                    if self._models is None:
                        raise Overloaded from None
                else:
                    self._models, self._read_at = found, time.monotonic()
        return self._models


def build(arguments: dict[str, Any]) -> serve.Application:
    """The application that `serve deploy` runs; `serve/app.yaml` names it.

    Args:
        arguments: settings of `ServeConfig`.

    Raises:
        InputError: a setting or a run is wrong.
    """
    config = parse_config(ServeConfig, arguments, source="arguments of the application")
    return application(config, find_served(config.runs))


def application(config: ServeConfig, served: Served) -> serve.Application:
    """The interface and its replicas, not running yet."""
    sizes, limits = config.replicas, config.limits
    waiting = limits.queued if limits.queued else -1
    without_adapters = replace(served, adapters={})
    replicas = serve.deployment(
        _Replica,
        name="replica",
        ray_actor_options={"num_cpus": sizes.cpus, "num_gpus": sizes.gpus},
        max_ongoing_requests=2 * config.batching.users,
        max_queued_requests=waiting,
        user_config={
            "adapters": {
                name: None if folder is None else str(folder)
                for name, folder in served.adapters.items()
            }
        },
        **_number_of_replicas(config),
    ).bind(without_adapters, config.batching, sizes.cpus)
    interface = serve.deployment(
        serve.ingress()(_Interface),
        name="interface",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=limits.queued + 4 * config.batching.users * sizes.most + 100,
    )
    bound: serve.Application = interface.bind(replicas, served, config)
    return bound


def _number_of_replicas(config: ServeConfig) -> dict[str, Any]:
    sizes = config.replicas
    if sizes.most == sizes.least:
        return {"num_replicas": sizes.least}
    return {
        "autoscaling_config": {
            "min_replicas": sizes.least,
            "max_replicas": sizes.most,
            "target_ongoing_requests": sizes.target_ongoing,
            "upscale_delay_s": sizes.upscale_delay_s,
            "downscale_delay_s": sizes.downscale_delay_s,
        }
    }


def start(config: ServeConfig) -> Served:
    """Start serving, or bring what is served up to date; returns when it is ready.

    Raises:
        InputError: a setting or a run is wrong.
    """
    read_token(config)
    served = find_served(config.runs)
    connect()
    serve.start(
        http_options={"host": config.host, "port": config.port, "location": "HeadOnly"},
        logging_config=_LOGGING,
    )
    serve.run(
        application(config, served),
        name=APP,
        logging_config=_LOGGING,
    )
    return served


def stop() -> None:
    """Stop serving, if it runs."""
    if ray.is_initialized():
        serve.shutdown()
