"""A slice of MovieLens-100K, prepared, for tests of evaluation."""

from pathlib import Path

from raypo.assets import movielens_100k
from raypo.config import PrepareConfig
from raypo.data.prepare import prepare


def prepare_slice(output: Path, maximum_rows: int) -> Path:
    """The last interactions with five candidates a row."""
    source = movielens_100k()
    config = PrepareConfig(
        interactions=(str(source / "ml-100k.inter"),),
        items=(str(source / "ml-100k.item"),),
        output=output,
        year_field="release_year",
        maximum_rows=maximum_rows,
        candidates=5,
    )
    prepare(config)
    return output
