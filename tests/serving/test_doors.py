"""Tokens: where they come from, and when there has to be one."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypo.config import ServeConfig, parse_config
from raypo.errors import InputError
from raypo.serving.doors import TOKEN_VARIABLE, read_token


def config(**settings: object) -> ServeConfig:
    return parse_config(ServeConfig, {"runs": ["runs/demo"], **settings}, "test")


def test_the_token_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token(config()) is None
    monkeypatch.setenv(TOKEN_VARIABLE, " from-environment ")
    assert read_token(config(host="0.0.0.0")) == "from-environment"
    file = tmp_path / "token"
    file.write_text("from-file\n")
    assert read_token(config(token_file=file)) == "from-file"
    file.write_text("\n")
    with pytest.raises(InputError, match=r"token_file: .* is empty"):
        read_token(config(token_file=file))
    with pytest.raises(InputError, match=r"token_file: .*absent cannot be read"):
        read_token(config(token_file=tmp_path / "absent"))


def test_others_are_not_let_in_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    for host in ("0.0.0.0", "192.168.1.5", "::"):
        with pytest.raises(InputError, match="other machines can reach it"):
            read_token(config(host=host))
    for host in ("127.0.0.1", "::1", "localhost"):
        assert read_token(config(host=host)) is None


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="runs: required"):
        parse_config(ServeConfig, {}, "test")
    with pytest.raises(InputError, match="most=1 is fewer than least=2"):
        config(replicas={"least": 2})
