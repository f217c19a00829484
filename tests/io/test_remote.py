"""URLs and their local copies are synchronised, on fsspec's file system in memory."""

import fsspec
import pytest

from raypo.config import RecommenderConfig, parse_config
from raypo.config.paths import local_path
from raypo.errors import InputError, StoppedRun
from raypo.io.remote import fetch, push, push_file, ray_storage, synced_folders

URL = "memory://bucket/run"


@pytest.fixture
def remote(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPO_CACHE", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    files.pipe("/bucket/run/a.txt", b"one")
    files.pipe("/bucket/run/deep/b.txt", b"two")
    files.pipe("/bucket/run/checkpoints/checkpoint_0/state.json", b"{}")
    return files


def config(output=URL):
    return parse_config(RecommenderConfig, {"data": "memory://bucket/data", "output": output}, "t")


def test_fetch_copies_everything_but_rays_own_files(remote):
    copy = local_path(URL)
    fetch(copy)
    assert (copy / "a.txt").read_text() == "one" and (copy / "deep/b.txt").read_text() == "two"
    assert not (copy / "checkpoints").exists()


def test_only_changed_files_are_transferred(remote):
    copy = local_path(URL)
    fetch(copy)
    before = (copy / "a.txt").stat().st_mtime_ns
    remote.pipe("/bucket/run/deep/b.txt", b"changed")
    fetch(copy)
    assert (copy / "a.txt").stat().st_mtime_ns == before
    assert (copy / "deep/b.txt").read_text() == "changed"
    written = {name: remote.modified(f"/bucket/run/{name}") for name in ("a.txt", "deep/b.txt")}
    (copy / "a.txt").write_text("mine")
    push(copy)
    assert remote.cat("/bucket/run/a.txt") == b"mine"
    assert remote.modified("/bucket/run/deep/b.txt") == written["deep/b.txt"]


def test_a_file_removed_on_one_side_is_removed_on_the_other(remote):
    copy = local_path(URL)
    fetch(copy)
    (copy / "a.txt").unlink()
    (copy / "new.txt").write_text("new")
    push(copy)
    assert not remote.exists("/bucket/run/a.txt") and remote.cat("/bucket/run/new.txt") == b"new"
    assert remote.exists("/bucket/run/checkpoints/checkpoint_0/state.json")
    remote.rm("/bucket/run/new.txt")
    (copy / "unpushed.txt").write_text("kept")
    fetch(copy)
    assert not (copy / "new.txt").exists() and (copy / "unpushed.txt").exists()


def test_a_lost_copy_is_fetched_again(remote):
    copy = local_path(URL)
    fetch(copy)
    (copy / "deep/b.txt").unlink()
    fetch(copy)
    assert (copy / "deep/b.txt").read_text() == "two"


def test_a_url_may_be_a_single_file(remote):
    file = local_path(URL + "/deep/b.txt")
    fetch(file)
    assert file.read_text() == "two"
    file.write_text("three")
    push_file(file)
    assert remote.cat("/bucket/run/deep/b.txt") == b"three"


def test_the_output_is_pushed_although_the_stage_fails(remote):
    remote.pipe("/bucket/data/dataset.json", b"{}")
    recommender = config()
    with pytest.raises(RuntimeError, match="halfway"), synced_folders(recommender):
        assert (recommender.data / "dataset.json").exists()
        (recommender.output / "metrics.jsonl").write_text("line")
        raise RuntimeError("halfway")
    assert remote.cat("/bucket/run/metrics.jsonl") == b"line"
    assert not remote.exists("/bucket/run/.raypo-probe")


def test_a_missing_input_is_an_error_before_anything_runs(remote):
    with (
        pytest.raises(InputError, match="memory://bucket/data: nothing there"),
        synced_folders(config()),
    ):
        raise AssertionError("ran")


def test_an_output_inside_a_configuration_need_not_be_there(remote):
    from raypo.config import TuneConfig

    remote.pipe("/bucket/data/dataset.json", b"{}")
    remote.pipe("/bucket/adapter/adapter_config.json", b"{}")
    align = {"data": "memory://bucket/data", "policy": {"adapter": "memory://bucket/adapter"}}
    values = {"align": align, "output": URL, "space": {"objective.rho": [0, 1]}}
    search = parse_config(TuneConfig, values, "t")
    with synced_folders(search):
        assert (search.align.data / "dataset.json").exists()
        # No files of our own: `open_run` would refuse the folder.
        assert {file.name for file in search.output.iterdir()} == {"a.txt", "deep"}


def test_an_unknown_kind_of_url_is_an_error(remote):
    with pytest.raises(InputError, match="abc://bucket/x: cannot be used"):
        fetch(local_path("abc://bucket/x"))


def test_a_url_that_cannot_be_written_keeps_the_copy(remote, monkeypatch):
    copy = local_path(URL)
    fetch(copy)
    (copy / "a.txt").write_text("mine")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(remote), "_open", refuse)
    with pytest.raises(StoppedRun, match="memory://bucket/run: cannot be written") as error:
        push(copy)
    assert str(copy) in str(error.value) and (copy / "a.txt").read_text() == "mine"


def test_local_folders_stay_as_they_are(tmp_path):
    (tmp_path / "a").write_text("x")
    fetch(tmp_path)
    push(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert ray_storage(tmp_path) == {"storage_path": str(tmp_path.resolve())}
