"""Formats of logs and catalogues: how lines are split and columns are named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from raypo.data.readers.sources import Source
from raypo.errors import InputError

Kind = Literal["delimited", "atomic", "json", "literal", "parquet"]
TimeField = str | tuple[str, str, str]


@dataclass(frozen=True)
class Format:
    """How to read a file, and the names of its columns.

    Attributes:
        kind: `delimited` lines; `atomic`, RecBole's, with a header of `name:type`; `json` objects
            or `literal` Python dicts, one per line; `parquet`.
        separator, quoted, encoding: of delimited lines.
        names: of the columns, if the file has no header.
        user, item, time, rating: columns of a log; time may be a year, a month and a day.
        title, year, category: columns of a catalogue.
        time_format: for `parse_times`.
        category_separator: between the categories of an item; the first one is used.
    """

    kind: Kind
    separator: str = "\t"
    quoted: bool = False
    encoding: str = "utf-8-sig"
    names: tuple[str, ...] | None = None
    user: str = "user_id"
    item: str = "item_id"
    time: TimeField = "timestamp"
    rating: str = "rating"
    title: str = "title"
    year: str | None = None
    category: str | None = None
    time_format: str = "auto"
    category_separator: str = "|"


_RATINGS = ("user_id", "item_id", "rating", "timestamp")
_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
)

FORMATS: dict[str, Format] = {
    "atomic": Format("atomic", title="movie_title"),
    "csv": Format("delimited", ",", quoted=True),
    "tsv": Format("delimited", "\t"),
    "json": Format("json"),
    "parquet": Format("parquet"),
    # grouplens.org: u.data and u.item of 100K, *.dat of 1M and 10M, *.csv from 20M on.
    "movielens-100k-ratings": Format("delimited", "\t", names=_RATINGS),
    "movielens-100k-items": Format(
        "delimited",
        "|",
        encoding="latin-1",
        names=("item_id", "title", "release_date", "video_date", "url", *_GENRES),
    ),
    "movielens-ratings": Format("delimited", "::", names=_RATINGS),
    "movielens-items": Format(
        "delimited",
        "::",
        encoding="utf-8 or latin-1",
        names=("item_id", "title", "genres"),
        category="genres",
    ),
    "movielens-csv": Format(
        "delimited", ",", quoted=True, user="userId", item="movieId", category="genres"
    ),
    # HetRec 2011: tags carry dates, listening counts do not.
    "lastfm-tags": Format(
        "delimited", "\t", user="userID", item="artistID", time=("year", "month", "day")
    ),
    "lastfm-artists": Format("delimited", "\t", item="id", title="name"),
    # UCSD: gzipped lines of JSON, and for Steam of Python dicts.
    "goodreads": Format(
        "json", item="book_id", time="date_added", time_format="%a %b %d %H:%M:%S %z %Y"
    ),
    "steam-reviews": Format(
        "literal", user="username", item="product_id", time="date", rating="hours"
    ),
    "steam-games": Format("literal", item="id", title="app_name", category="genres"),
}

_BY_NAME = {
    "u.data": "movielens-100k-ratings",
    "u.item": "movielens-100k-items",
    "ratings.dat": "movielens-ratings",
    "movies.dat": "movielens-items",
    "ratings.csv": "movielens-csv",
    "movies.csv": "movielens-csv",
    "user_taggedartists.dat": "lastfm-tags",
    "artists.dat": "lastfm-artists",
}
_BY_SUFFIX = {
    ".inter": "atomic",
    ".item": "atomic",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}


def find_format(name: str, source: Source) -> Format:
    """The format of this name; `auto` recognises it by the file's name.

    Raises:
        InputError: the format is unknown, or the file's name does not show it.
    """
    if name == "auto":
        name = _BY_NAME.get(source.name) or _BY_SUFFIX.get(source.suffix) or ""
        if not name:
            raise InputError(
                f"{source.location}: its name does not show its format; name one of "
                f"{', '.join(FORMATS)}"
            )
    if name not in FORMATS:
        raise InputError(f"format {name!r}: unknown; known are auto, {', '.join(FORMATS)}")
    return FORMATS[name]
