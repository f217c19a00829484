"""Paths and URLs in configurations."""

from pathlib import Path

import pytest

from raypo.config import SftConfig, dump_config, parse_config
from raypo.config.paths import local_path, uri, url_of
from raypo.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("url", ["s3://bucket/runs/sft", "gs://bucket/a", "memory://x/y z"])
def test_a_url_becomes_the_path_of_its_copy_and_the_url_again(url, cache):
    copy = local_path(url)
    assert copy.is_relative_to(cache) and copy.is_absolute()
    assert url_of(copy) == url and uri(copy) == url
    assert url_of(copy / "adapter") == f"{url}/adapter"


def test_local_paths_are_absolute_and_have_no_url(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert local_path("runs/x") == tmp_path / "runs/x"
    assert local_path("file:///runs/x") == Path("/runs/x")
    assert url_of(tmp_path) is None and uri(Path("/a")) == "/a"


def test_a_configuration_names_urls_on_every_machine(monkeypatch, tmp_path):
    values = {
        "data": "s3://bucket/data",
        "output": "s3://bucket/runs/sft",
        "policy": {"adapter": "s3://bucket/adapter"},
    }
    config = parse_config(SftConfig, values, "test")
    text = dump_config(config)
    assert "s3://bucket/runs/sft" in text and str(tmp_path) not in text
    sent = config.model_dump(mode="json")
    monkeypatch.setenv("RAYPO_CACHE", str(tmp_path / "another"))
    received = parse_config(SftConfig, sent, "worker")
    assert received.output != config.output and dump_config(received) == text


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://key:secret@bucket/x", "password"),
        ("s3://bucket/x?secret_key=y", "environment"),
        ("s3://bucket/../x", "'..'"),
        ("s3://", "expected a path or a URL"),
    ],
)
def test_a_url_without_a_host_or_with_a_secret_is_refused(url, message):
    with pytest.raises(InputError, match=message) as error:
        parse_config(SftConfig, {"data": url, "output": "x"}, "test")
    assert "secret" not in str(error.value).replace("secret_key", "")
