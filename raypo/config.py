"""Configuration: one pydantic model per stage, read from YAML and `key=value` overrides.

Layers, each overriding the one before: the model's defaults, the YAML file, dotted overrides
(`optimiser.learning_rate=1e-4`). Every error names the file, the field and what was expected.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
# Absolute at once: workers run in folders of their own.
LocalPath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


Paper = Literal["movielens", "lastfm", "goodreads", "steam"]


class InputError(ValueError):
    """Something the user gave is wrong; the message names the place and what was expected."""


class StoppedRun(RuntimeError):
    """A run could not go on; the message says why, where to look, and what is left of it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _locations(value: Any) -> Any:
    """One path or URL or several; local ones absolute at once."""
    several = value if isinstance(value, list | tuple) else [value]
    if not several or not all(isinstance(one, str | Path) for one in several):
        return value
    return tuple(
        str(one) if "://" in str(one) else str(Path(one).expanduser().absolute()) for one in several
    )


Locations = Annotated[tuple[str, ...], BeforeValidator(_locations), Field(min_length=1)]


class PrepareConfig(_Strict):
    """`raypo data prepare`: logs and titles to sequences, splits and candidate sets.

    Columns and time formats that are not named are those that the files' format usually has.
    """

    interactions: Locations = Field(description="files of interactions: paths, globs or URLs")
    items: Locations = Field(description="files of items with titles, likewise")
    output: LocalPath = Field(description="folder of the prepared data set")
    interactions_format: str = Field("auto", description="`auto` goes by the file's name")
    items_format: str = Field("auto", description="likewise")
    user_field: str | None = Field(None, description="column of users")
    item_field: str | None = Field(None, description="column of item ids")
    catalogue_item_field: str | None = Field(
        None, description="column of item ids in the item files, where it has another name"
    )
    time_field: str | tuple[str, str, str] | None = Field(
        None, description="column of times, or those of year, month and day"
    )
    rating_field: str | None = Field(None, description="column of ratings, for minimum_rating")
    title_field: str | None = Field(None, description="column of the item files with the title")
    year_field: str | None = Field(
        None, description="column that tells apart items of the same title, if there is one"
    )
    category_field: str | None = Field(None, description="column of categories; the first counts")
    time_format: str = Field(
        "auto", description="seconds, milliseconds, iso or a pattern such as %Y-%m-%d"
    )
    malformed: Literal["stop", "quarantine"] = Field(
        "stop", description="rows that cannot be used stop the run, or go to quarantine.jsonl"
    )
    minimum_rating: float | None = Field(
        None, description="interactions below it only count as touched"
    )
    duplicates: Literal["keep", "exact", "first", "last"] = Field(
        "keep",
        description="of a user and an item: keep all, drop those of the same time, or keep one",
    )
    ties: Literal["file", "random"] = Field(
        "file",
        description="interactions of the same time follow each other as in the files, or by lot: "
        "where times are coarse, the order of the file is often that of ids",
    )
    minimum_user_interactions: NonNegativeInt = Field(
        0, description="users with fewer are left out; with the next, again until all have enough"
    )
    minimum_item_interactions: NonNegativeInt = Field(
        0, description="items with fewer are left out; 0 keeps items that nobody touched"
    )
    history_length: PositiveInt = Field(10, description="most recent items kept in a history")
    minimum_history: PositiveInt = Field(3, description="rows with a shorter history are not made")
    candidates: Annotated[int, Field(ge=2)] = Field(20, description="target included")
    sampling: Literal["uniform", "popularity", "category"] = Field(
        "uniform",
        description="of the other candidates among what the user never touched: by popularity in "
        "training, or of the target's category",
    )
    split_by: Literal["chronological", "leave-one-out", "by-user"] = Field(
        "chronological",
        description="rows by time; each user's last rows held out; or whole users held out",
    )
    split: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        (8, 1, 1), description="train : validation : test, of rows or of users"
    )
    clean_titles: bool = Field(True, description="'Godfather, The' becomes 'The Godfather'")
    maximum_rows: PositiveInt | None = Field(
        None, description="keep only the last so many interactions: a slice for quick runs"
    )
    paper: Paper | None = Field(
        None, description="print the statistics beside those that papers give for this data set"
    )
    workers: NonNegativeInt = Field(
        0, description="Ray workers; 0 works in this process. The result is the same"
    )
    seed: NonNegativeInt = 0


class ImportConfig(_Strict):
    """`raypo data import`: published S-DPO/LLaRA files, evaluated exactly as published."""

    train: LocalPath = Field(description="JSON array or JSON lines, gzipped or not")
    validation: LocalPath | None = Field(
        None, description="None takes the last tenth of the training rows"
    )
    test: LocalPath = Field(description="likewise")
    output: LocalPath = Field(description="folder of the prepared data set")
    separator: str = Field("::", description="between titles, where lists are one text")
    malformed: Literal["stop", "quarantine"] = Field(
        "stop",
        description="rows without their target among the candidates, or with a candidate twice, "
        "stop the run or go to quarantine.jsonl",
    )
    paper: Paper | None = Field(
        None, description="print the statistics beside those that papers give for this data set"
    )
    history_field: str = "historyList"
    candidates_field: str = "itemList"
    target_field: str = "trueSelection"


class RecommenderConfig(_Strict):
    """`raypo recommender train`: the sequential recommender (SASRec, GRU4Rec or Caser)."""

    data: LocalPath
    output: LocalPath
    kind: Literal["sasrec", "gru4rec", "caser"] = "sasrec"
    hidden: PositiveInt = 64
    layers: PositiveInt = Field(2, description="of sasrec (attention) and gru4rec (recurrent)")
    heads: PositiveInt = Field(2, description="of sasrec: attention heads per layer")
    horizontal_filters: PositiveInt = Field(
        4, description="of caser: filters of each height, 1 to max_length items"
    )
    vertical_filters: PositiveInt = Field(
        2, description="of caser: weighted sums over the last max_length items"
    )
    dropout: Share = 0.2
    max_length: PositiveInt = Field(10, description="items of a history that are read")
    batch_size: PositiveInt = 256
    learning_rate: PositiveFloat = 3e-3
    weight_decay: float = 0.0
    temperature: PositiveFloat = Field(0.1, description="of the softmax over cosine scores")
    max_epochs: PositiveInt = 60
    patience: PositiveInt = Field(5, description="epochs without a better validation HitRatio@1")
    launcher: Literal["local", "ray"] = Field(
        "local", description="in this process, or on a Ray Train worker"
    )
    seed: NonNegativeInt = 0


class LoraConfig(_Strict):
    """Low-rank adapters (arXiv 2106.09685) on all linear layers by default."""

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    dropout: Share = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"


class PolicyConfig(_Strict):
    """Which language model, in which precision, with which adapter."""

    model: str = Field("smollm2-135m-instruct", description="folder, or a built-in model's name")
    adapter: LocalPath | None = Field(None, description="PEFT adapter folder to start from")
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    lora: LoraConfig = LoraConfig()
    prompt: LocalPath | None = Field(None, description="template file; None is the built-in one")
    max_prompt_tokens: PositiveInt | None = Field(
        None,
        description="longer prompts lose their oldest history items; None is the model's context "
        "less the longest title",
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute layers in backward: less memory, a third more time"
    )
    quantisation: Literal["4bit"] | None = Field(
        None, description="of the base weights while training; needs a GPU and bitsandbytes"
    )


class OptimiserConfig(_Strict):
    """AdamW with linear warm-up and cosine decay to zero."""

    learning_rate: PositiveFloat = 2e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_share: Share = Field(0.05, description="share of the steps spent warming up")
    gradient_clip: PositiveFloat = 1.0


class ClusterConfig(_Strict):
    """How the training loop is spread: Ray Train workers and the DeepSpeed engine."""

    workers: PositiveInt = 2
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    engine: Literal["deepspeed", "torch"] = "deepspeed"
    zero_stage: Literal[0, 2, 3] = 0
    max_failures: NonNegativeInt = Field(1, description="worker failures survived by resuming")
    launcher: Literal["ray", "local"] = Field(
        "ray", description="`local` runs one worker in this process, without Ray"
    )


class ValidationConfig(_Strict):
    """Validation while training: HitRatio@1 by likelihood on some validation rows."""

    every: PositiveInt = Field(20, description="optimiser steps between validations")
    rows: PositiveInt = 64


class _TrainingConfig(_Strict):
    data: LocalPath = Field(description="prepared data set")
    output: LocalPath = Field(description="run folder")
    policy: PolicyConfig = PolicyConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    cluster: ClusterConfig = ClusterConfig()
    validation: ValidationConfig = ValidationConfig()
    micro_batch: PositiveInt = Field(4, description="users per worker and forward pass")
    token_budget: PositiveInt | None = Field(
        None, description="tokens of a packed row; None packs a micro-batch into one row"
    )
    accumulation: PositiveInt = Field(1, description="micro-batches per optimiser step")
    epochs: PositiveInt = 1
    rows: PositiveInt | None = Field(None, description="training rows drawn; None takes all")
    mlflow: str | None = Field(
        None, description="tracking URI of MLflow, beside the run's TensorBoard files"
    )
    seed: NonNegativeInt = 0

    @property
    def users_per_step(self) -> int:
        """Users in one optimiser step over all workers."""
        return self.micro_batch * self.accumulation * self.cluster.workers


class SftConfig(_TrainingConfig):
    """`raypo sft`: token-mean negative log-likelihood of the target's title."""


Part = str | dict[str, Any]
_PARTS = ("reward", "negatives", "temperature", "aggregation", "margin", "link")


class ObjectiveConfig(_Strict):
    """A preset's name and parameters (None keeps the preset's own default), or parts to compose."""

    name: str | None = Field(None, description="a preset; napo where no parts are given either")
    reward: Part | None = Field(None, description="part of a composed objective, as are these")
    negatives: Part | None = None
    selection: Part | None = Field(None, description="of a preset (a kind) or a composed objective")
    temperature: Part | None = None
    aggregation: Part | None = None
    margin: Part | None = None
    link: Part | None = None
    beta: PositiveFloat | None = None
    gamma: float | None = Field(None, description="gamma_0, the margin")
    alpha: float | None = None
    rho: Share | None = Field(None, description="share of the batch whose negatives are shared")
    momentum: Share | None = None
    sharing_gradient: Literal["all", "local", "own"] | None = None
    mask_collisions: bool | None = None
    similarity: Literal["inner", "cosine"] | None = None
    length_normalised: bool | None = None
    dynamic_margin: bool | None = None
    dynamic_beta: bool | None = None
    boundary_alpha: float | None = None
    boundary_gamma: float | None = None
    confidence_start: float | None = None
    eps_max: float | None = None
    tau: PositiveFloat | None = None
    top_k: PositiveInt | None = None

    @property
    def composed(self) -> bool:
        """Whether parts are given rather than a preset."""
        return any(getattr(self, part) is not None for part in _PARTS)

    @property
    def label(self) -> str:
        """What to call it: the preset's name, or `composed`."""
        return "composed" if self.composed else self.name or "napo"

    def options(self) -> dict[str, Any]:
        """What was set, as keyword arguments of `build_objective` or `compose_objective`."""
        return self.model_dump(exclude={"name"}, exclude_none=True)

    @model_validator(mode="after")
    def _preset_or_parts(self) -> ObjectiveConfig:
        if not self.composed:
            return self
        if self.name is not None:
            raise ValueError(
                "give a preset's `name` with its options, or parts "
                f"({', '.join(_PARTS)}, selection), not both"
            )
        stray = sorted(set(self.options()) - {*_PARTS, "selection"})
        if stray:
            raise ValueError(
                f"{', '.join(stray)}: in a composed objective an option belongs to its part, such "
                "as margin: {kind: napo, alpha: 0.3}"
            )
        return self


class AlignConfig(_TrainingConfig):
    """`raypo align`: preference alignment of the SFT policy."""

    objective: ObjectiveConfig = ObjectiveConfig()
    negatives: PositiveInt = Field(3, description="sampled negatives per user (n)")
    reference: Literal["precomputed", "on-the-fly"] = Field(
        "precomputed",
        description="reference log-probs: one pass before training, kept by content; or a frozen "
        "copy of the adapter, one more forward pass a step",
    )
    recommender: LocalPath | None = Field(
        None, description="run folder of the sequential recommender"
    )

    @model_validator(mode="after")
    def _needs_sft_adapter(self) -> AlignConfig:
        if self.policy.adapter is None:
            raise ValueError(
                "policy.adapter: alignment starts from an SFT adapter; give its folder"
            )
        return self


class EngineConfig(_Strict):
    """The pool of vLLM engines behind Ray Data."""

    engines: PositiveInt = 1
    gpus_per_engine: Annotated[float, Field(ge=0)] = 0
    cpus_per_engine: Annotated[float, Field(gt=0)] = 1
    tensor_parallel: PositiveInt = 1
    max_model_len: PositiveInt = 1024
    batch_size: PositiveInt = 32
    concurrent_batches: PositiveInt = Field(
        2, description="batches an engine answers at once; fewer show progress sooner"
    )
    max_new_tokens: PositiveInt = 24
    kv_cache_gib: PositiveInt = Field(2, description="CPU only: memory of the KV cache")


class ScorerConfig(_Strict):
    """The pool behind Ray Data that ranks candidates by likelihood."""

    kind: Literal["packed", "vllm"] = Field(
        "packed",
        description="the policy's own scorer, or vLLM engines of merged weights, one model after "
        "the other",
    )
    length_normalised: bool = Field(False, description="rank by log-prob a token")
    workers: PositiveInt = 2
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    batch_size: PositiveInt = Field(4, description="users per forward pass")
    max_model_len: PositiveInt = Field(1024, description="of vLLM: prompt and candidate together")
    kv_cache_gib: PositiveInt = Field(2, description="of vLLM on CPU: memory of the KV cache")


class EvaluateConfig(_Strict):
    """`raypo evaluate`: an adapter, several adapters, a recommender or a rule on the test rows.

    With `adapters` each gets its own folder under `output`; otherwise `output` holds one model.
    """

    data: LocalPath
    output: LocalPath
    policy: PolicyConfig = PolicyConfig()
    adapters: dict[str, LocalPath | None] | None = Field(
        None, description="name -> adapter folder (null is the base model), in one engine start"
    )
    recommender: LocalPath | None = Field(None, description="evaluate this recommender instead")
    rule: Literal["random", "popularity", "item-knn", "markov-chain"] | None = Field(
        None, description="or this rule"
    )
    answers: tuple[Literal["generate", "constrained", "likelihood"], ...] = (
        "generate",
        "likelihood",
    )
    split: Literal["validation", "test"] = "test"
    rows: PositiveInt | None = Field(None, description="rows drawn from the split; None takes all")
    generate_rows: PositiveInt | None = Field(
        None, description="the first so many of the rows are generated for; None is all of them"
    )
    orders: NonNegativeInt = Field(
        0, description="other orders of the same candidates that are ranked too, drawn by lot"
    )
    check_rows: NonNegativeInt = Field(
        2, description="generated answers compared with the policy's own greedy decoding"
    )
    engine: EngineConfig = EngineConfig()
    scorer: ScorerConfig = ScorerConfig()
    resamples: PositiveInt = Field(2000, description="bootstrap resamples of the intervals")
    seed: NonNegativeInt = 0


class TuneConfig(_Strict):
    """`raypo tune`: a search over alignment settings; keys are dotted paths of AlignConfig."""

    align: AlignConfig
    output: LocalPath
    space: dict[str, tuple[float, ...]] = Field(
        description="dotted key -> the values tried, or (low, high) with `sampler: uniform`"
    )
    sampler: Literal["grid", "uniform"] = "grid"
    trials: PositiveInt = Field(8, description="draws, with `sampler: uniform`")
    concurrent: PositiveInt = 1
    seed: NonNegativeInt = 0


class PipelineConfig(_Strict):
    """The whole way: data set, recommender, SFT, alignment, evaluation and report.

    A stage's section holds that stage's settings, without what the pipeline fills in itself:
    `data`, `output`, `seed`, the model, and the adapter or recommender of the stage before.
    """

    output: LocalPath = Field(description="folder of all the stages' run folders")
    title: str = "raypo"
    seed: NonNegativeInt = Field(
        0, description="of training; data and test rows keep the seed they are given"
    )
    builtin_data: Literal["movielens-100k"] | None = Field(
        None, description="fetched by name; otherwise `prepare` names the user's own files"
    )
    model: str = "smollm2-135m-instruct"
    baselines: tuple[Literal["gru4rec", "caser"], ...] = Field(
        (),
        description="sequential recommenders that are trained for comparison beside `recommender`",
    )
    prepare: dict[str, Any] = {}
    recommender: dict[str, Any] = {}
    sft: dict[str, Any] = {}
    align: dict[str, Any] = {}
    evaluate: dict[str, Any] = {}
    expected_minutes: dict[str, float] = Field(
        default={}, description="stage -> minutes, in order: only to say how long is left in all"
    )


ModelT = TypeVar("ModelT", bound=BaseModel)


def load_config(
    model: type[ModelT], file: Path | None = None, overrides: Sequence[str] = ()
) -> ModelT:
    """Read a stage's configuration.

    Args:
        model: the stage's pydantic model.
        file: YAML file, or None for defaults and overrides alone.
        overrides: `dotted.key=value`; the value is read as YAML.

    Raises:
        InputError: unreadable file, unknown key (with the nearest known one), or a wrong value.
    """
    values = _read_yaml(file) if file is not None else {}
    for override in overrides:
        _apply_override(values, override)
    return parse_config(model, values, source=str(file) if file else "command line")


def parse_config(model: type[ModelT], values: Mapping[str, Any], source: str) -> ModelT:
    """Validate `values`; errors are gathered into one InputError that names `source`."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        lines = [_explain(model, dict(problem)) for problem in error.errors()]
        raise InputError(f"{source}: " + "; ".join(lines)) from None


def dump_config(config: BaseModel) -> str:
    """The resolved configuration as YAML, readable by `load_config`."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{file}: not valid YAML ({error})") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{file}: expected a mapping of settings, got {type(values).__name__}")
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"override {override!r}: expected key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"override {override!r}: {text!r} is not a valid value") from None
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise InputError(
                f"override {override!r}: {parent!r} is a value, not a group of settings"
            )
        values = inner
    values[last] = _number_if_it_reads_as_one(value)


def _number_if_it_reads_as_one(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text; people mean the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _explain(model: type[BaseModel], problem: dict[str, Any]) -> str:
    location = [str(part) for part in problem["loc"]]
    where = ".".join(location) or "configuration"
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(known)
        return f"{where}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{where}: required, not given"
    if problem["type"] == "value_error":
        return str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {problem['msg']}, got {problem['input']!r}"


def _fields_at(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    for part in location:
        field = model.model_fields.get(part)
        inner = _model_inside(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is Union or get_args(annotation):
        for argument in get_args(annotation):
            found = _model_inside(argument)
            if found:
                return found
    return None
