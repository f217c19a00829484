"""Files to read: local paths, globs and any URL that fsspec knows."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
from fsspec.core import url_to_fs

from raypo.errors import InputError

_COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}


@dataclass(frozen=True)
class Source:
    """One file.

    Attributes:
        location: path or URL, as messages name it. size: bytes as stored.
    """

    location: str
    size: int

    @property
    def name(self) -> str:
        """Last part of the location."""
        return PurePosixPath(self.location).name

    @property
    def suffix(self) -> str:
        """File ending in lower case, without that of a compression."""
        path = PurePosixPath(self.location)
        suffix = path.suffix.lower()
        return PurePosixPath(path.stem).suffix.lower() if suffix in _COMPRESSED else suffix

    @property
    def inflated(self) -> int:
        """Estimated number of bytes when unpacked."""
        packed = PurePosixPath(self.location).suffix.lower() in {*_COMPRESSED, ".parquet"}
        return self.size * 5 if packed else self.size


def resolve_sources(locations: Sequence[str]) -> list[Source]:
    """The files of paths, globs and URLs; those of a glob in the order of their names.

    Raises:
        InputError: there is no file, or the location cannot be read.
    """
    return [source for location in locations for source in _matching(location)]


@contextlib.contextmanager
def open_source(source: Source, compression: str | None = "infer") -> Iterator[BinaryIO]:
    """Open a file for reading bytes; a packed file, recognised by its name, is unpacked.

    Raises:
        InputError: it cannot be read.
    """
    file: Any = fsspec.open(source.location, "rb", compression=compression)
    try:
        stream = file.__enter__()
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{source.location}: cannot be read ({error})") from None
    try:
        yield stream
    finally:
        file.__exit__(None, None, None)


def refuse_utf16(start: bytes, file: str) -> None:
    """Refuse a text file that begins with the byte order mark of UTF-16.

    Raises:
        InputError: it does.
    """
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(
            f"{file}: is UTF-16, expected UTF-8; convert it (iconv -f UTF-16 -t UTF-8)"
        )


def release_memory() -> None:
    """Return unused memory to the system, which allocators delay."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def identify(sources: Sequence[Source]) -> list[dict[str, str]]:
    """Name and sha256 of each file's bytes as stored."""
    return [{"file": source.name, "sha256": _hash(source)} for source in sources]


def _hash(source: Source) -> str:
    digest = hashlib.sha256()
    with open_source(source, compression=None) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _matching(location: str) -> list[Source]:
    try:
        filesystem, path = url_to_fs(location)
        # A name with a bracket is no pattern if a file has that name.
        pattern = any(mark in path for mark in "*?[") and not filesystem.exists(path)
        paths = sorted(filesystem.glob(path)) if pattern else [path]
        files = [one for one in paths if filesystem.isfile(one)]
        if not files:
            what = "no file matches" if pattern else _absent(filesystem, path)
            raise InputError(f"{location}: {what}")
        return [
            Source(
                one if "://" not in location else str(filesystem.unstrip_protocol(one)),
                int(filesystem.size(one) or 0),
            )
            for one in files
        ]
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{location}: cannot be read ({error})") from None


def _absent(filesystem: Any, path: str) -> str:
    return "cannot be read (is a folder)" if filesystem.isdir(path) else "no such file"
