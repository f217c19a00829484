"""Where things lie: local paths, and URLs whose content is worked on in a local copy.

Code knows local paths alone. A URL (`s3://bucket/runs/sft`) becomes the path of its copy as soon as
a configuration is read, and the URL again when a configuration is written or sent to a worker, so
that every machine has copies of its own and run folders name no machine. `raypo.io.remote` keeps a
copy and its URL in step.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer


def cache_folder() -> Path:
    """Where fetched models, data and copies are kept: `$RAYPO_CACHE`, else the user's cache."""
    chosen = os.environ.get("RAYPO_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "raypo"


def url_of(path: Path) -> str | None:
    """The URL that `path` is the copy of, None for what is local itself."""
    try:
        scheme, *parts = path.relative_to(_copies()).parts
    except ValueError:
        return None
    return f"{scheme}://" + "/".join(parts)


def local_path(value: str | Path) -> Path:
    """A path or URL as the local path to work with; local ones absolute at once.

    Raises:
        ValueError: a URL with a password, options or a step upwards.
    """
    # Absolute at once, since workers run in folders of their own.
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
            f"{scheme}://…: a URL with a password or options, which would stand in config.yaml; "
            "give credentials and endpoints by the environment (AWS_ACCESS_KEY_ID, "
            "AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS)"
        )
    if ".." in parts:
        raise ValueError(f"{value}: a URL cannot hold '..'")
    return _copies().joinpath(scheme, *parts)


def uri(path: Path) -> str:
    """The URL of a copy, else the path."""
    return url_of(path) or str(path)


def _copies() -> Path:
    return cache_folder() / "remote"


def _read(value: Any) -> Any:
    return local_path(value) if isinstance(value, str | Path) else value


LocalPath = Annotated[
    Path, BeforeValidator(_read), PlainSerializer(uri, when_used="json-unless-none")
]
