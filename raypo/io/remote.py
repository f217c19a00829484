"""Run folders, data sets and adapters at a URL: S3, GCS, whatever pyarrow or fsspec reads.

A stage works in a local copy (`raypo.config.paths`). Inputs are fetched before they are read. The
output is pushed at every checkpoint and at the end of the stage, also when it fails. A listing in
the cache records the state of both sides at the last synchronisation, so that only changed files
are transferred.
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

from raypo.config import cache_folder
from raypo.config.paths import url_of
from raypo.errors import InputError, StoppedRun
from raypo.io.files import atomic_path, value_hash, write_text

# Ray itself writes the first two at the URL and reads them there; the others are temporary files.
_NOT_COPIED = ("*checkpoints/checkpoint_*", "tune/*", ".*", "*/.*")
P = ParamSpec("P")
R = TypeVar("R")
# Size in bytes and modification time in nanoseconds.
_FileState = tuple[int, int]


@dataclass(frozen=True)
class _SyncState:
    """A file at the URL and its local copy, as they were when last synchronised."""

    remote: _FileState
    local: _FileState


def synced(action: Callable[P, R]) -> Callable[P, R]:
    """Let the folders of a stage be URLs: run `action(config, …)` in `synced_folders`."""

    @functools.wraps(action)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        config: Any = args[0] if args else kwargs["config"]
        with synced_folders(config):
            return action(*args, **kwargs)

    return run


@contextlib.contextmanager
def synced_folders(config: BaseModel) -> Iterator[None]:
    """Fetch the folders of a configuration that are URLs; push its output when the block ends.

    The output is pushed also when the block raises.

    Raises:
        InputError: there is nothing at the URL of an input, or a URL cannot be read or written.
    """
    output: Path = config.output  # type: ignore[attr-defined]
    for path in inputs(config):
        fetch(path)
        if url_of(path) is not None and not path.exists():
            raise InputError(f"{url_of(path)}: nothing there")
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
    """Every path in a configuration, at any depth, except outputs."""
    if isinstance(config, Path):
        yield config
    elif isinstance(config, BaseModel):
        for name in type(config).model_fields:
            if name != "output":
                yield from inputs(getattr(config, name))
    elif isinstance(config, dict):
        for value in config.values():
            yield from inputs(value)
    elif isinstance(config, tuple | list):
        for value in config:
            yield from inputs(value)


def filesystem(copy: Path) -> tuple[pafs.FileSystem, str]:
    """The file system of a local copy's URL, and the path on it.

    Raises:
        InputError: neither pyarrow nor an installed fsspec package supports this kind of URL.
    """
    url = url_of(copy)
    assert url is not None, f"{copy} is not the copy of a URL"
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


def ray_storage(folder: Path) -> dict[str, Any]:
    """A folder, or the URL that it is the copy of, as storage arguments of Ray's RunConfig."""
    if url_of(folder) is None:
        return {"storage_path": str(folder.resolve())}
    files, path = filesystem(folder)
    return {"storage_path": path, "storage_filesystem": files}


def ray_folder(folder: Path, name: str) -> tuple[pafs.FileSystem, str]:
    """File system and path of what Ray stores under a name in a folder."""
    storage = ray_storage(folder)
    files = storage.get("storage_filesystem") or pafs.LocalFileSystem()
    return files, f"{storage['storage_path']}/{name}"


def remove_ray_records(folder: Path, name: str) -> None:
    """Remove what Ray stored under a name for its own use, which is not needed afterwards."""
    files, path = ray_folder(folder, name)
    if files.get_file_info(path).type == pafs.FileType.Directory:
        files.delete_dir(path)


def fetch(path: Path) -> None:
    """Update the local copy of a URL; files that were never pushed stay.

    Args:
        path: file or folder. Nothing happens where it is not the copy of a URL.

    Raises:
        InputError: the URL cannot be read.
    """
    if url_of(path) is None:
        return
    files, root = filesystem(path)
    with _sync_states(path) as states, _readable(path):
        remote = _remote_files(files, root)
        for name, state in remote.items():
            known = states.get(name)
            target = path / name if name else path
            if known is None or known.remote != state or not target.exists():
                _download(files, f"{root}/{name}" if name else root, target)
                states[name] = _SyncState(state, _local_state(target))
        for name in set(states) - set(remote):
            (path / name).unlink(missing_ok=True)
            del states[name]


def push(folder: Path) -> None:
    """Update a URL from its local copy.

    Args:
        folder: the copy. Nothing happens where it is not the copy of a URL.

    Raises:
        StoppedRun: the URL cannot be written; the copy is kept.
    """
    if url_of(folder) is None:
        return
    files, root = filesystem(folder)
    with _sync_states(folder) as states, _writable(folder):
        local = {name: _local_state(folder / name) for name in _local_files(folder)}
        for name, state in local.items():
            if name not in states or states[name].local != state:
                _upload(files, folder / name, f"{root}/{name}")
                states[name] = _SyncState(_remote_state(files, f"{root}/{name}"), state)
        for name in set(states) - set(local) - {""}:
            files.delete_file(f"{root}/{name}")
            del states[name]


def push_file(file: Path) -> None:
    """Push a single file, without the folder that it is in.

    Raises:
        StoppedRun: the URL cannot be written; the copy is kept.
    """
    if url_of(file) is None:
        return
    files, path = filesystem(file)
    with _writable(file):
        _upload(files, file, path)


def _check_writable(folder: Path) -> None:
    files, root = filesystem(folder)
    probe = f"{root}/.raypo-probe"
    try:
        files.create_dir(root)
        with files.open_output_stream(probe) as stream:
            stream.write(b"")
        files.delete_file(probe)
    except OSError as error:
        raise InputError(f"{url_of(folder)}: cannot be written ({error})") from None


@contextlib.contextmanager
def _sync_states(path: Path) -> Iterator[dict[str, _SyncState]]:
    """File name -> state at the last synchronisation, locked; saved also when the block raises."""
    # Not in the copy itself: `open_run` refuses a folder that has files but no configuration.
    folder = cache_folder() / "listings"
    folder.mkdir(parents=True, exist_ok=True)
    name = value_hash(url_of(path))[:20]
    listing = folder / f"{name}.json"
    with FileLock(folder / f"{name}.lock"):
        saved = json.loads(listing.read_text(encoding="utf-8")) if listing.exists() else {}
        states = {
            name: _SyncState(tuple(value["remote"]), tuple(value["local"]))
            for name, value in saved.items()
        }
        try:
            yield states
        finally:
            write_text(listing, json.dumps({name: asdict(one) for name, one in states.items()}))


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{url_of(path)}: cannot be read ({error})") from error


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoppedRun(
            f"{url_of(path)}: cannot be written ({error}); the files are kept in {path}, and the "
            "same command continues from there"
        ) from error


def _remote_files(files: pafs.FileSystem, root: str) -> dict[str, _FileState]:
    """Name below `root` -> state; the name is '' where `root` itself is a file."""
    own = files.get_file_info(root)
    if own.type == pafs.FileType.File:
        return {"": _state(own)}
    found = files.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
    named = {info.path[len(root) :].lstrip("/"): info for info in found if info.is_file}
    return {name: _state(info) for name, info in named.items() if _copied(name)}


def _remote_state(files: pafs.FileSystem, path: str) -> _FileState:
    return _state(files.get_file_info(path))


def _state(info: pafs.FileInfo) -> _FileState:
    return int(info.size), int(info.mtime_ns or 0)


def _local_files(folder: Path) -> list[str]:
    names = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return sorted(name for name in names if _copied(name))


def _local_state(file: Path) -> _FileState:
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
