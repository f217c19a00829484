"""Local paths, and URLs whose content is worked on in a local copy.

All code works with local paths. Reading a configuration turns a URL (`s3://bucket/runs/sft`) into
the path of its local copy; writing a configuration or sending it to a worker turns the path into
the URL again. So every machine has copies of its own, and run folders name no machine.
`raypo.io.remote` synchronises a copy with its URL.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

from raypo.config.base import BaseConfig


def cache_folder() -> Path:
    """The folder of fetched models, data and copies: `$RAYPO_CACHE`, else the user's cache."""
    chosen = os.environ.get("RAYPO_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "raypo"


def url_of(path: Path) -> str | None:
    """The URL of which `path` is the local copy; None for other paths."""
    try:
        scheme, *parts = path.relative_to(_copies()).parts
    except ValueError:
        return None
    return f"{scheme}://" + "/".join(parts)


def local_path(value: str | Path) -> Path:
    """The absolute local path of a path, or of a URL's copy.

    Raises:
        ValueError: a URL with a password, options or '..'.
    """
    # Absolute, since workers run in other working folders.
    scheme, separator, rest = str(value).partition("://")
    if isinstance(value, Path) or not separator:
        return Path(value).expanduser().absolute()
    if scheme == "file":
        return Path(rest).absolute()
    parts = [part for part in rest.split("/") if part]
    if not parts or not scheme.isalnum():
        raise ValueError(f"{value}: expected a path or a URL such as s3://bucket/folder")
    if "@" in parts[0] or "?" in rest:
        raise ValueError(
            f"{scheme}://…: a URL with a password or options, which config.yaml would show; "
            "set credentials and endpoints in the environment (AWS_ACCESS_KEY_ID, "
            "AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS)"
        )
    if ".." in parts:
        raise ValueError(f"{value}: a URL cannot hold '..'")
    return _copies().joinpath(scheme, *parts)


def uri(path: Path) -> str:
    """The URL of a local copy, else the path as text."""
    return url_of(path) or str(path)


def _copies() -> Path:
    return cache_folder() / "remote"


def _to_local_path(value: Any) -> Any:
    return local_path(value) if isinstance(value, str | Path) else value


LocalPath = Annotated[
    Path, BeforeValidator(_to_local_path), PlainSerializer(uri, when_used="json-unless-none")
]


def path_unless(names: Collection[str]) -> Callable[[Any], Any]:
    """A validator that takes one of these names as it is, and anything else as a path."""

    def parse(value: Any) -> Any:
        return value if isinstance(value, str) and value in names else _to_local_path(value)

    return parse


def uri_or_name(value: Path | str) -> str:
    """The serialised form of a path or a name."""
    return uri(value) if isinstance(value, Path) else value


class StageFolders(BaseConfig):
    """What a stage after preparation reads and where it writes."""

    data: LocalPath = Field(description="prepared data set")
    output: LocalPath = Field(description="run folder")
