"""The language model that is trained and evaluated."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from raypo.config.base import BaseConfig, Fraction, PositiveFloat, PositiveInt
from raypo.config.paths import LocalPath


class LoraConfig(BaseConfig):
    """Low-rank adapters (arXiv 2106.09685) on all linear layers by default."""

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    dropout: Fraction = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"


class PolicySettings(BaseConfig):
    """Settings of the language model: precision, LoRA, prompt and memory."""

    set_by_pipeline: ClassVar[frozenset[str]] = frozenset({"model", "adapter"})

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    lora: LoraConfig = LoraConfig()
    prompt: LocalPath | None = Field(None, description="template file; None is the built-in one")
    max_prompt_tokens: PositiveInt | None = Field(
        None,
        description="longer prompts lose their oldest history items; None is the model's context "
        "length less the longest title",
    )
    gradient_checkpointing: bool | Literal["auto"] = Field(
        "auto",
        description="layers recomputed in backward: true for all (least memory, a third more "
        "time), false for none, `auto` for so many that further responses of a user need little "
        "more memory than one",
    )
    quantisation: Literal["4bit"] | None = Field(
        None, description="of the base weights while training; needs a GPU and bitsandbytes"
    )


class PolicyConfig(PolicySettings):
    """The language model and its adapter, with their settings."""

    model: str = Field("smollm2-135m-instruct", description="folder, or a built-in model's name")
    adapter: LocalPath | None = Field(None, description="PEFT adapter folder to start from")
