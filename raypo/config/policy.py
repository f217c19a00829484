"""The language model that is trained and evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from raypo.config.base import BaseConfig, Fraction, PositiveFloat, PositiveInt
from raypo.config.paths import LocalPath, path_unless, uri_or_name

BUILT_IN_PROMPTS = ("ranking", "chatrec", "tallrec", "history")
HINT_HEURISTICS = ("popularity", "item-knn", "markov-chain")
HintKind = Literal["none", "rank", "order", "vector"]
HintFeature = Literal["item", "score", "popularity"]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


PromptPath = Annotated[
    Path | str, BeforeValidator(path_unless(BUILT_IN_PROMPTS)), PlainSerializer(uri_or_name)
]
HintSource = Annotated[
    Path | str, BeforeValidator(path_unless(HINT_HEURISTICS)), PlainSerializer(uri_or_name)
]
HintSources = Annotated[tuple[HintSource, ...], BeforeValidator(_as_tuple), Field(min_length=1)]


class LoraConfig(BaseConfig):
    """Low-rank adapters (arXiv 2106.09685) on all linear layers by default."""

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    dropout: Fraction = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"


class PolicySettings(BaseConfig):
    """Settings of the language model: precision, LoRA, prompt and memory."""

    set_by_pipeline: ClassVar[frozenset[str]] = frozenset(
        {"model", "adapter", "hints", "hints_recommender", "hint_fusion"}
    )

    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of the base model; auto is bfloat16 on GPUs and on CPUs with instructions for "
        "it, and float32 on others, where bfloat16 is a hundred times slower",
    )
    lora: LoraConfig = LoraConfig()
    prompt: PromptPath | None = Field(
        None,
        description="template file, or a built-in one: ranking (the default), chatrec, tallrec. A "
        "template with {candidate} instead of {candidates} asks about one candidate at a time, and "
        "is answered by Yes or No (TALLRec)",
    )
    item_text: bool | None = Field(
        None,
        description="whether prompts show items' texts (prepare's item_text) in place of titles; "
        "answers are titles. None is what the adapter was trained with, or false",
    )
    hint_features: tuple[HintFeature, ...] = Field(
        ("item", "score", "popularity"),
        description="what the vector of a title is made from: the recommender's item vector, its "
        "score for this user standardised over the candidates, popularity in training",
    )
    hint_marker: Literal["before", "after"] = Field(
        "before", description="side of a title on which the token of its vector stands"
    )
    hint_fusion: bool = Field(
        False,
        description="one hint of several sources: their scores, standardised over the candidates, "
        "in a conditional logit whose weights are fitted to training rows out of fold",
    )
    hints_in_fold: bool = Field(
        False,
        description="allow hints from a recommender that was fitted to the rows it hints at; a "
        "policy learns to trust such hints more than held-out rows deserve",
    )
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
    offload_activations: bool = Field(
        False,
        description="keep the inputs of recomputed layers in the host's memory, for prompts so "
        "long that these fill a GPU",
    )
    head_kernel: Literal["torch", "triton"] = Field(
        "torch",
        description="what computes the softmax of the LM head: torch's operations, or a Triton "
        "kernel that reads the logits fewer times, on a GPU",
    )
    compile_layers: bool = Field(
        False,
        description="compile the decoder's layers in training, on a GPU, for any length; the first "
        "step takes minutes more",
    )
    quantisation: Literal["4bit"] | None = Field(
        None, description="of the base weights while training; needs a GPU and bitsandbytes"
    )


class PolicyConfig(PolicySettings):
    """The language model and its adapter, with their settings."""

    model: str = Field("smollm2-135m-instruct", description="folder, or a built-in model's name")
    adapter: LocalPath | None = Field(None, description="PEFT adapter folder to start from")
    hints: HintKind | None = Field(
        None,
        description="what the prompt says of a recommender's knowledge: none; rank (its rank of "
        "each candidate before the title); order (candidates in its order); vector (a token "
        "beside each title whose embedding is made from features). None is what the adapter was "
        "trained with, or none",
    )
    hints_recommender: HintSources | None = Field(
        None,
        description="sources of hints: run folders of recommenders, popularity, item-knn, "
        "markov-chain; None is what the adapter was trained with",
    )
