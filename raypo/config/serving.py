"""Serving trained models over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from raypo.config.base import BaseConfig, NonNegativeInt, PositiveFloat, PositiveInt
from raypo.config.paths import LocalPath

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


class Replicas(BaseConfig):
    """How many replicas rank; Ray Serve adds and removes them between the bounds."""

    least: PositiveInt = 1
    most: PositiveInt = 1
    target_ongoing: PositiveInt = Field(
        8, description="requests that a replica has at a time before another one is started"
    )
    upscale_delay_s: PositiveFloat = 10
    downscale_delay_s: PositiveFloat = 120
    cpus: PositiveFloat = Field(1, description="of a replica: threads that its policy computes on")
    gpus: Annotated[float, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _in_order(self) -> Replicas:
        if self.most < self.least:
            raise ValueError(f"most={self.most} is fewer than least={self.least}")
        return self


class Limits(BaseConfig):
    """What a request may hold, and how many may wait."""

    history: PositiveInt = Field(200, description="items of a history")
    candidates: PositiveInt = Field(200, description="candidates or documents of a request")
    body_bytes: PositiveInt = Field(1 << 20, description="size of a request's body")
    queued: NonNegativeInt = Field(
        64, description="requests that wait; further ones are answered 503 with Retry-After"
    )
    timeout_s: PositiveFloat = Field(30, description="a request that takes longer is answered 504")


class Batching(BaseConfig):
    """How requests that wait are put together."""

    users: PositiveInt = Field(8, description="requests that are ranked together, at most")
    tokens: PositiveInt = Field(
        4096,
        description="tokens of one forward pass, at most, unless one request has more: those "
        "ranked together are sorted by length and packed into as few passes as hold them",
    )
    wait_s: Annotated[float, Field(ge=0)] = Field(
        0.01, description="how long the first of a batch waits for others"
    )


class ServeConfig(BaseConfig):
    """`raypo serve`: recommendations over HTTP by the models of finished runs."""

    runs: Annotated[tuple[LocalPath, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = Field(
        description="folders of a pipeline, or of `raypo sft` and `raypo align`, on one data set "
        "and one base model"
    )
    default_model: str | None = Field(
        None, description="answers requests that name none; None is the fused one, else the last"
    )
    retrieved: PositiveInt = Field(
        20,
        description="items that the recommender retrieves from the catalogue for the language "
        "model to rank; as many as training's candidates is what it knows",
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    token_file: LocalPath | None = Field(
        None,
        description="file with the bearer token that requests must bring; without it, "
        "$RAYPO_TOKEN, if set",
    )
    replicas: Replicas = Replicas()
    limits: Limits = Limits()
    batching: Batching = Batching()
