"""The options of a preparation, grouped by step."""

from __future__ import annotations

from dataclasses import dataclass

from raypo.config import PrepareConfig
from raypo.data.candidates import Sampling
from raypo.data.filters import Filters
from raypo.data.item_texts import text_fields
from raypo.data.readers import ItemColumns, LogColumns
from raypo.data.readers.rejected_rows import Policy
from raypo.data.shards import Duplicates
from raypo.data.split import SplitOptions


@dataclass(frozen=True)
class PrepareOptions:
    """Options by step.

    Attributes:
        interactions: locations of the log, for messages.
        log_columns, item_columns: how the files are read.
        rejected: what happens to unusable rows.
        minimum_rating: interactions below it only count as seen.
        tie_seed: orders interactions of the same time at random; None keeps the files' order.
        duplicates: what happens to repeated interactions of a user and an item.
        filters: which interactions are kept.
        split: how rows are made and divided.
        candidates: of a row, target included. sampling: of the others.
        clean_titles: whether moved articles are put back.
        item_text: template of items' texts; None writes no texts.
        seed: of all random draws.
    """

    interactions: tuple[str, ...]
    log_columns: LogColumns
    item_columns: ItemColumns
    rejected: Policy
    minimum_rating: float | None
    tie_seed: int | None
    duplicates: Duplicates
    filters: Filters
    split: SplitOptions
    candidates: int
    sampling: Sampling
    clean_titles: bool
    item_text: str | None
    seed: int


def resolve_options(config: PrepareConfig) -> PrepareOptions:
    """Group the settings of `raypo data prepare` by the step that takes them.

    Raises:
        InputError: `item_text` is no template of texts.
    """
    return PrepareOptions(
        interactions=config.interactions,
        log_columns=LogColumns(
            form=config.interactions_format,
            user=config.user_field,
            item=config.item_field,
            time=config.time_field,
            rating=config.rating_field,
            with_rating=config.minimum_rating is not None,
            time_format=config.time_format,
        ),
        item_columns=ItemColumns(
            form=config.items_format,
            item=config.catalogue_item_field or config.item_field,
            title=config.title_field,
            year=config.year_field,
            category=config.category_field,
            with_category=config.sampling == "category",
            others=() if config.item_text is None else text_fields(config.item_text),
        ),
        rejected=config.malformed,
        minimum_rating=config.minimum_rating,
        tie_seed=config.seed if config.tie_break == "random" else None,
        duplicates=config.duplicates,
        filters=Filters(
            config.minimum_user_interactions, config.minimum_item_interactions, config.maximum_rows
        ),
        split=SplitOptions(
            by=config.split_by,
            ratio=config.split,
            minimum_history=config.minimum_history,
            history_length=config.history_length,
            only_interacted=config.minimum_item_interactions > 0,
            seed=config.seed,
            cold_share=config.cold_share,
            held_out=config.held_out,
        ),
        candidates=config.candidates,
        sampling=config.sampling,
        clean_titles=config.clean_titles,
        item_text=config.item_text,
        seed=config.seed,
    )
