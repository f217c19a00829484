"""Run folders, data sets and adapters behind a URL: S3, GCS, whatever pyarrow or fsspec reads.

A stage works in a local copy (`raypo.config.paths`). What the URL holds is fetched before it is
read; what a stage wrote is pushed at every checkpoint and at its end, also when it fails. A listing
in the cache says what both were when they last agreed, so that only what changed travels.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs
from filelock import FileLock
from pydantic import BaseModel

from raypo.config import InputError, StoppedRun, cache_folder
from raypo.config.paths import url_of
from raypo.io.files import atomic_path, value_hash, write_text

# Ray writes and reads these at the URL by itself; and files in the making are nobody's.
_NOT_COPIED = ("*checkpoints/checkpoint_*", "tune/*", ".*", "*/.*")
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class _Agreed:
    """Size and time of a file at the URL and of its copy when the two were last the same."""

    remote: tuple[int, int]
    local: tuple[int, int]


def synced(action: Callable[P, R]) -> Callable[P, R]:
    """Let a stage's folders be URLs: `synced_folders` around `action(config, …)`."""

    @functools.wraps(action)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        config: Any = args[0] if args else kwargs["config"]
        with synced_folders(config):
            return action(*args, **kwargs)

    return run


@contextlib.contextmanager
def synced_folders(config: BaseModel) -> Iterator[None]:
    """Fetch what `config` names by URL; afterwards push its output, whatever happened.

    Raises:
        InputError: nothing at a URL that is read, or one that cannot be read or written.
    """
    output: Path = config.output  # type: ignore[attr-defined]
    for place in inputs(config):
        fetch(place)
        if url_of(place) is not None and not place.exists():
            raise InputError(f"{url_of(place)}: nothing there")
    if url_of(output) is None:
        yield
        return
    fetch(output)
    _check_writable(output)
    try:
        yield
    finally:
        push(output)


def inputs(config: Any) -> Iterator[Path]:
    """Every path in a configuration but outputs."""
    if isinstance(config, Path):
        yield config
    elif isinstance(config, BaseModel):
        for name in type(config).model_fields:
            if name != "output":
                yield from inputs(getattr(config, name))
    elif isinstance(config, dict):
        for value in config.values():
            yield from inputs(value)


def filesystem(place: Path) -> tuple[pafs.FileSystem, str]:
    """The file system behind a copy's URL, and the path on it.

    Raises:
        InputError: a kind of URL that neither pyarrow nor an installed fsspec package knows.
    """
    url = url_of(place)
    assert url is not None, f"{place} is no copy"
    try:
        files, path = pafs.FileSystem.from_uri(url)
        return files, str(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        from fsspec.core import url_to_fs

        try:
            plain, path = url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise InputError(f"{url}: cannot be used ({error})") from None
        return pafs.PyFileSystem(pafs.FSSpecHandler(plain)), path


def ray_storage(place: Path) -> dict[str, Any]:
    """`place` as the storage_path of Ray Train and Tune."""
    if url_of(place) is None:
        return {"storage_path": str(place.resolve())}
    files, path = filesystem(place)
    return {"storage_path": path, "storage_filesystem": files}


def ray_folder(place: Path, name: str) -> tuple[pafs.FileSystem, str]:
    """File system and path of what Ray stores in `place` under a name."""
    storage = ray_storage(place)
    files = storage.get("storage_filesystem") or pafs.LocalFileSystem()
    return files, f"{storage['storage_path']}/{name}"


def remove_ray_records(place: Path, name: str) -> None:
    """Remove what Ray stored for itself under a name, which nobody reads afterwards."""
    files, folder = ray_folder(place, name)
    if files.get_file_info(folder).type == pafs.FileType.Directory:
        files.delete_dir(folder)


def fetch(place: Path) -> None:
    """Make a copy what its URL is; files that were never pushed stay. Nothing for local places.

    Raises:
        InputError: the URL cannot be read.
    """
    if url_of(place) is None:
        return
    files, root = filesystem(place)
    with _locked(place) as agreed, _readable(place):
        there = _remote_files(files, root)
        for name, state in there.items():
            known = agreed.get(name)
            target = place / name if name else place
            if known is None or known.remote != state or not target.exists():
                _download(files, f"{root}/{name}" if name else root, target)
                agreed[name] = _Agreed(state, _local_state(target))
        for name in set(agreed) - set(there):
            (place / name).unlink(missing_ok=True)
            del agreed[name]


def push(place: Path) -> None:
    """Make a URL what its copy is. Nothing for local places.

    Raises:
        StoppedRun: the URL cannot be written; the copy is kept.
    """
    if url_of(place) is None:
        return
    files, root = filesystem(place)
    with _locked(place) as agreed, _writable(place):
        here = {name: _local_state(place / name) for name in _local_files(place)}
        for name, state in here.items():
            if name not in agreed or agreed[name].local != state:
                _upload(files, place / name, f"{root}/{name}")
                agreed[name] = _Agreed(_remote_state(files, f"{root}/{name}"), state)
        for name in set(agreed) - set(here) - {""}:
            files.delete_file(f"{root}/{name}")
            del agreed[name]


def push_file(file: Path) -> None:
    """Push one file of a folder whose other parts are in step already."""
    if url_of(file) is None:
        return
    files, path = filesystem(file)
    with _writable(file):
        _upload(files, file, path)


def _check_writable(place: Path) -> None:
    files, root = filesystem(place)
    probe = f"{root}/.raypo-probe"
    try:
        files.create_dir(root)
        with files.open_output_stream(probe) as stream:
            stream.write(b"")
        files.delete_file(probe)
    except OSError as error:
        raise InputError(f"{url_of(place)}: cannot be written ({error})") from None


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[dict[str, _Agreed]]:
    """What both sides agreed on, kept for the next time also if not all of the block succeeds."""
    # Apart from the copies: a run folder must not look used before it is one.
    folder = cache_folder() / "listings"
    folder.mkdir(parents=True, exist_ok=True)
    name = value_hash(url_of(place))[:20]
    listing = folder / f"{name}.json"
    with FileLock(folder / f"{name}.lock"):
        kept = json.loads(listing.read_text(encoding="utf-8")) if listing.exists() else {}
        agreed = {
            name: _Agreed(tuple(value["remote"]), tuple(value["local"]))
            for name, value in kept.items()
        }
        try:
            yield agreed
        finally:
            write_text(listing, json.dumps({name: asdict(one) for name, one in agreed.items()}))


@contextlib.contextmanager
def _readable(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{url_of(place)}: cannot be read ({error})") from error


@contextlib.contextmanager
def _writable(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoppedRun(
            f"{url_of(place)}: cannot be written ({error}); what was made is kept in {place}, and "
            "the same command goes on from there"
        ) from error


def _remote_files(files: pafs.FileSystem, root: str) -> dict[str, tuple[int, int]]:
    """Name under `root` -> size and time; '' names `root` itself where it is a file."""
    own = files.get_file_info(root)
    if own.type == pafs.FileType.File:
        return {"": _state(own)}
    found = files.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
    named = {info.path[len(root) :].lstrip("/"): info for info in found if info.is_file}
    return {name: _state(info) for name, info in named.items() if _copied(name)}


def _remote_state(files: pafs.FileSystem, path: str) -> tuple[int, int]:
    return _state(files.get_file_info(path))


def _state(info: pafs.FileInfo) -> tuple[int, int]:
    return int(info.size), int(info.mtime_ns or 0)


def _local_files(place: Path) -> list[str]:
    names = (file.relative_to(place).as_posix() for file in place.rglob("*") if file.is_file())
    return sorted(name for name in names if _copied(name))


def _local_state(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _copied(name: str) -> bool:
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in _NOT_COPIED)


def _download(files: pafs.FileSystem, path: str, target: Path) -> None:
    with atomic_path(target) as temporary:
        pafs.copy_files(path, str(temporary), files, pafs.LocalFileSystem(), use_threads=False)


def _upload(files: pafs.FileSystem, source: Path, path: str) -> None:
    files.create_dir(path.rpartition("/")[0])
    pafs.copy_files(str(source), path, pafs.LocalFileSystem(), files, use_threads=False)
