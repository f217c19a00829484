"""Evaluation, and its pools of engines and scorers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from raypo.config.base import BaseConfig, NonNegativeInt, PositiveInt
from raypo.config.paths import LocalPath, StageFolders
from raypo.config.policy import HintSources, PolicyConfig, PolicySettings

CatalogueScope = Annotated[str, StringConstraints(pattern=r"^(all|(retrieved|beam):[1-9][0-9]*)$")]


class EngineConfig(BaseConfig):
    """The pool of vLLM engines behind Ray Data."""

    engines: PositiveInt = 1
    gpus_per_engine: Annotated[float, Field(ge=0)] = 0
    cpus_per_engine: Annotated[float, Field(gt=0)] = 1
    tensor_parallel: PositiveInt = 1
    max_model_len: PositiveInt = 1024
    batch_size: PositiveInt = 32
    concurrent_batches: PositiveInt = Field(
        2, description="batches an engine works on at once; fewer show progress sooner"
    )
    max_new_tokens: PositiveInt = 24
    kv_cache_gib: PositiveInt = Field(2, description="CPU only: memory of the KV cache")


class ScorerConfig(BaseConfig):
    """The pool behind Ray Data that ranks candidates by likelihood."""

    kind: Literal["packed", "vllm"] = Field(
        "packed",
        description="the policy's own scorer, or vLLM engines with merged weights, one model after "
        "the other",
    )
    length_normalised: bool = Field(False, description="rank by log-prob per token")
    workers: PositiveInt = 2
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    batch_size: PositiveInt = Field(4, description="users per forward pass")
    token_budget: PositiveInt = Field(
        512, description="with catalogue=all: tokens of titles per forward pass"
    )
    max_model_len: PositiveInt = Field(1024, description="of vLLM: prompt and candidate together")
    kv_cache_gib: PositiveInt = Field(2, description="of vLLM on CPU: memory of the KV cache")


class EvaluateSettings(BaseConfig):
    """Settings of an evaluation, as a pipeline's `evaluate` section has them."""

    renamed: ClassVar[Mapping[str, str]] = {
        "rows": "max_rows",
        "orders": "num_permutations",
        "check_rows": "num_greedy_checks",
        "resamples": "num_bootstrap",
        "rule": "heuristic",
    }
    set_by_pipeline: ClassVar[frozenset[str]] = frozenset(
        {
            "data",
            "output",
            "adapters",
            "recommender",
            "heuristic",
            "catalogue",
            "retrievers",
            "rank_seen",
        }
    )

    policy: PolicySettings = PolicySettings()
    answers: tuple[Literal["generate", "constrained", "likelihood"], ...] = (
        "generate",
        "likelihood",
    )
    split: Literal["validation", "test"] = "test"
    max_rows: PositiveInt | None = Field(
        None, description="rows drawn from the split; None takes all"
    )
    generate_rows: PositiveInt | None = Field(
        None, description="number of leading rows that answers are generated for; None takes all"
    )
    num_permutations: NonNegativeInt = Field(
        0, description="further random permutations of the candidates that are ranked too"
    )
    num_greedy_checks: NonNegativeInt = Field(
        2,
        description="generated answers of each model that are compared with the policy's own "
        "greedy decoding",
    )
    engine: EngineConfig = EngineConfig()
    scorer: ScorerConfig = ScorerConfig()
    num_bootstrap: PositiveInt = Field(2000, description="bootstrap resamples of the intervals")
    seed: NonNegativeInt = 0


class EvaluateConfig(EvaluateSettings, StageFolders):
    """`raypo evaluate`: one or several adapters, a recommender or a heuristic on the test rows.

    With `adapters` each gets its own folder under `output`; otherwise `output` holds one model.
    """

    policy: PolicyConfig = PolicyConfig()
    adapters: dict[str, LocalPath | None] | None = Field(
        None, description="name -> adapter folder (null is the base model), in one engine start"
    )
    recommender: LocalPath | None = Field(None, description="evaluate this recommender instead")
    heuristic: Literal["random", "popularity", "item-knn", "markov-chain"] | None = Field(
        None, description="evaluate this heuristic baseline instead"
    )
    catalogue: CatalogueScope | None = Field(
        None,
        description="rank the whole catalogue in place of each row's candidates: `all` of it, "
        "`beam:K`, the K items that a beam search over titles finds, or `retrieved:K`, those that "
        "retrievers find; answers are likelihoods then",
    )
    retrievers: HintSources | None = Field(
        None,
        description="run folders of recommenders, or popularity, item-knn, markov-chain; several "
        "give their best in turn",
    )
    rank_seen: bool | None = Field(
        None,
        description="with catalogue: rank items of the history too; null does where a target of "
        "training is in its own history",
    )


class PromptsConfig(BaseConfig):
    """`raypo prompts`: what a policy reads of held-out rows."""

    data: LocalPath = Field(description="prepared data set")
    policy: PolicyConfig = Field(
        PolicyConfig(), description="prompts are those that its adapter was trained with"
    )
    split: Literal["validation", "test"] = "test"
    max_rows: PositiveInt | None = Field(3, description="rows drawn from the split; null is all")
    seed: NonNegativeInt = 0
