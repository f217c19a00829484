"""Preparing and importing data, and sequential recommenders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from raypo.config.base import (
    BaseConfig,
    Fraction,
    Locations,
    NonNegativeInt,
    Paper,
    PositiveFloat,
    PositiveInt,
)
from raypo.config.paths import LocalPath, StageFolders


class PrepareSettings(BaseConfig):
    """Settings of data preparation, as a pipeline's `prepare` section has them.

    Columns and time formats default to those of the files' format.
    """

    renamed: ClassVar[Mapping[str, str]] = {"ties": "tie_break"}
    set_by_pipeline: ClassVar[frozenset[str]] = frozenset({"output"})

    interactions: Locations | None = Field(
        None, description="files of interactions: paths, globs or URLs"
    )
    items: Locations | None = Field(
        None, description="files of items with titles: paths, globs or URLs"
    )
    interactions_format: str = Field("auto", description="`auto` recognises it by the file's name")
    items_format: str = Field("auto", description="as interactions_format")
    user_field: str | None = Field(None, description="column of users")
    item_field: str | None = Field(None, description="column of item ids")
    catalogue_item_field: str | None = Field(
        None, description="column of item ids in the item files, if its name differs"
    )
    time_field: str | tuple[str, str, str] | None = Field(
        None, description="column of times, or three columns: year, month and day"
    )
    rating_field: str | None = Field(None, description="column of ratings, for minimum_rating")
    title_field: str | None = Field(None, description="column of the item files with the title")
    year_field: str | None = Field(
        None, description="column that distinguishes items of the same title"
    )
    category_field: str | None = Field(
        None, description="column of categories; the first one is used"
    )
    time_format: str = Field(
        "auto",
        description="seconds, milliseconds, microseconds, nanoseconds, mixed (each by its size), "
        "iso or a pattern such as %Y-%m-%d; auto finds it out",
    )
    malformed: Literal["stop", "quarantine"] = Field(
        "stop", description="unusable rows stop the run, or are written to quarantine.jsonl"
    )
    minimum_rating: float | None = Field(
        None, description="interactions below it only count as seen"
    )
    duplicates: Literal["keep", "exact", "first", "last"] = Field(
        "keep",
        description="repeated interactions of a user and an item: keep all, drop those of the same "
        "time, or keep one",
    )
    tie_break: Literal["file", "random"] = Field(
        "file",
        description="order of interactions of the same time: as in the files, or random; "
        "if times are coarse, files are often sorted by id",
    )
    minimum_user_interactions: NonNegativeInt = Field(
        0, description="users with fewer are left out; repeated with items until all have enough"
    )
    minimum_item_interactions: NonNegativeInt = Field(
        0, description="items with fewer are left out; 0 also keeps items without any"
    )
    history_length: PositiveInt = Field(10, description="most recent items kept in a history")
    minimum_history: PositiveInt = Field(3, description="earlier interactions that a row needs")
    candidates: Annotated[int, Field(ge=2)] = Field(
        20, description="candidates per row, target included"
    )
    sampling: Literal["uniform", "popularity", "category"] = Field(
        "uniform",
        description="how other candidates are drawn from unseen items: uniformly, by popularity in "
        "training, or from the target's category",
    )
    split_by: Literal["chronological", "leave-one-out", "by-user", "cold-items"] = Field(
        "chronological",
        description="rows by time; each user's last rows held out; some users held out; or "
        "interactions by time, where some items have none in the training period",
    )
    cold_share: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.1, description="with split_by=cold-items: share of the items that training never shows"
    )
    split: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        (8, 1, 1), description="train : validation : test, of rows or of users"
    )
    held_out: Literal["every", "first", "last"] = Field(
        "every",
        description="with split_by=chronological: which of a user's rows after a point in time are "
        "validation and test rows; the others are in histories alone",
    )
    clean_titles: bool = Field(True, description="'Godfather, The' becomes 'The Godfather'")
    item_text: str | None = Field(
        None,
        description="template of items' texts, such as `{title} ({release_year}, {class})`, with "
        "columns of the item files; text encoders read it, and prompts with policy.item_text=true",
    )
    maximum_rows: PositiveInt | None = Field(
        None, description="keep only this many of the latest interactions, for quick runs"
    )
    paper: Paper | None = Field(
        None, description="print the statistics next to those that papers give for this data set"
    )
    workers: NonNegativeInt = Field(
        0, description="Ray workers; 0 runs in this process. The result is the same"
    )
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _cold_items_have_candidates_of_both_kinds(self) -> PrepareSettings:
        if self.split_by == "cold-items":
            if self.sampling != "uniform":
                raise ValueError(
                    f"sampling: {self.sampling} draws no candidates of both kinds; "
                    "split_by=cold-items needs sampling=uniform"
                )
            if self.candidates < 4:
                raise ValueError("candidates: split_by=cold-items needs at least 4")
        return self

    @model_validator(mode="after")
    def _held_out_rows_are_behind_a_point_in_time(self) -> PrepareSettings:
        if self.held_out != "every" and self.split_by != "chronological":
            raise ValueError(
                f"held_out={self.held_out}: is of split_by=chronological, not {self.split_by}"
            )
        return self


class PrepareConfig(PrepareSettings):
    """`raypo data prepare`: logs and titles to sequences, splits and candidate sets."""

    interactions: Locations = Field(description="files of interactions: paths, globs or URLs")
    items: Locations = Field(description="files of items with titles: paths, globs or URLs")
    output: LocalPath = Field(description="folder of the prepared data set")


class ImportConfig(BaseConfig):
    """`raypo data import`: S-DPO's or LLaRA's published files."""

    layout: Literal["json", "llara"] = Field(
        "json",
        description="json: rows of titles with candidates, as S-DPO publishes; llara: pickled data "
        "frames of item ids, as LLaRA publishes, which `items` names",
    )

    train: LocalPath | None = Field(
        None,
        description="JSON array or JSON lines, gzipped or not; without it, a data set serves "
        "evaluation alone",
    )
    validation: LocalPath | None = Field(
        None, description="as train; None takes the last tenth of the training rows"
    )
    test: LocalPath = Field(description="as train")
    output: LocalPath = Field(description="folder of the prepared data set")
    items: LocalPath | None = Field(
        None,
        description="file of all items, with their ids and titles: id2name.txt (`id::name`), "
        "LLaRA's u.item, or a file of `raypo data prepare`",
    )
    items_format: str = Field("auto", description="`auto` recognises it by the file's name")
    item_field: str | None = Field(None, description="column of ids in the items file")
    title_field: str | None = Field(None, description="column of titles in the items file")
    separator: Annotated[str, Field(min_length=1)] = Field(
        "::",
        description="between titles, if a list is one text; it is divided so that all parts are "
        "titles that the files name",
    )
    malformed: Literal["stop", "quarantine"] = Field(
        "stop",
        description="unusable rows stop the run, or are written to quarantine.jsonl",
    )
    paper: Paper | None = Field(
        None, description="print the statistics next to those that papers give for this data set"
    )
    history_field: str = Field("historyList", description="titles, oldest first")
    candidates_field: str = Field("itemList", description="titles, the target among them")
    target_field: str = Field("trueSelection", description="a title")
    user_field: str | None = Field(
        None,
        description="the source's id of the user; None finds users by histories that continue",
    )
    history_ids_field: str | None = Field(
        None, description="the source's ids of the history's items, in the same order"
    )
    candidates_ids_field: str | None = Field(
        None, description="the source's ids of the candidates, in the same order"
    )
    target_id_field: str | None = Field(None, description="the source's id of the target")
    candidates: Annotated[int, Field(ge=2)] = Field(
        20, description="with layout=llara: candidates per row, target included, drawn once"
    )
    seed: NonNegativeInt = Field(0, description="with layout=llara: of the drawn candidates")


class FoldsConfig(BaseConfig):
    """Training rows held out of further fits, so that hints at them are out of fold."""

    by: Literal["time", "users"] = Field(
        "time",
        description="time: one fit to the earliest rows, the later ones are held out; users: each "
        "user's rows are held out of one of `count` fits",
    )
    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="with by=time: share of the training rows that the fit takes"
    )
    count: Annotated[int, Field(ge=2)] = Field(3, description="with by=users: number of fits")


class RecommenderSettings(BaseConfig):
    """Settings of a sequential recommender, as a pipeline's `recommender` section has them."""

    set_by_pipeline: ClassVar[frozenset[str]] = frozenset({"data", "output", "seed"})

    kind: Literal["sasrec", "gru4rec", "caser", "morec"] = Field(
        "sasrec", description="morec: sasrec over vectors of the items' texts"
    )
    encoder: str = Field(
        "minilm-l6",
        description="text encoder of morec: a transformers folder, or a built-in model's name",
    )
    encoder_training: Literal["frozen", "end-to-end"] = Field(
        "frozen",
        description="whether morec's encoder is trained too, which takes two more passes over all "
        "texts in every step",
    )
    encoder_learning_rate: PositiveFloat = Field(2e-5, description="of the encoder, end to end")
    hidden: PositiveInt = 64
    layers: PositiveInt = Field(
        2, description="layers of sasrec and morec (attention) and gru4rec (recurrent)"
    )
    heads: PositiveInt = Field(2, description="attention heads per layer of sasrec and morec")
    horizontal_filters: PositiveInt = Field(
        4, description="filters of caser of each height, 1 to max_length items"
    )
    vertical_filters: PositiveInt = Field(
        2, description="weighted sums of caser over the last max_length items"
    )
    dropout: Fraction = 0.2
    max_length: PositiveInt = Field(10, description="items of a history that are read")
    batch_size: PositiveInt = 256
    learning_rate: PositiveFloat = 3e-3
    weight_decay: float = 0.0
    temperature: PositiveFloat = Field(0.1, description="of the softmax over cosine scores")
    max_epochs: PositiveInt = 60
    patience: PositiveInt = Field(
        5, description="epochs without a better validation HitRatio@1 before training stops"
    )
    launcher: Literal["local", "ray"] = Field(
        "local", description="in this process, or on a Ray Train worker"
    )
    folds: FoldsConfig | None = Field(
        None, description="also fit to parts of the training rows, for out-of-fold hints"
    )


class RecommenderConfig(RecommenderSettings, StageFolders):
    """`raypo recommender train`: the sequential recommender (SASRec, GRU4Rec, Caser or MoRec)."""

    seed: NonNegativeInt = 0
