"""Prompts that an adapter was trained with are those it is asked with."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypo.config import PolicyConfig
from raypo.errors import InputError
from raypo.policy.prompt_record import (
    prompt_record,
    read_prompt_record,
    with_recorded_prompt,
    write_prompt_record,
)


def adapter(folder: Path, template: str = "{history} {candidates}", **settings: object) -> Path:
    folder.mkdir()
    policy = PolicyConfig.model_validate(settings)
    write_prompt_record(folder, prompt_record(policy, template))
    return folder


def test_what_is_not_set_is_the_adapters(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", hints="rank", hints_recommender="item-knn", item_text=True)
    policy, template = with_recorded_prompt(PolicyConfig(), [None, folder])
    assert (policy.hints, policy.item_text) == ("rank", True)
    assert policy.hints_recommender == ("item-knn",)
    assert template == "{history} {candidates}"


def test_without_an_adapter_prompts_are_plain() -> None:
    policy, template = with_recorded_prompt(PolicyConfig(), [None])
    assert (policy.hints, policy.item_text, template) == ("none", False, None)


def test_a_setting_that_is_given_wins_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = adapter(tmp_path / "a", hints="rank", hints_recommender="item-knn", item_text=True)
    policy, _ = with_recorded_prompt(PolicyConfig(item_text=False), [folder])
    assert (policy.hints, policy.item_text) == ("rank", False)
    assert "policy.item_text=False" in caplog.text and "item_text=True" in caplog.text
    policy, _ = with_recorded_prompt(PolicyConfig(hints="none"), [folder])
    assert (policy.hints, policy.item_text) == ("none", True)


def test_adapters_of_different_prompts_are_not_asked_together(tmp_path: Path) -> None:
    first = adapter(tmp_path / "a", item_text=True)
    second = adapter(tmp_path / "b")
    with pytest.raises(InputError, match="b: was trained with other prompts"):
        with_recorded_prompt(PolicyConfig(), [first, second])
    policy, _ = with_recorded_prompt(PolicyConfig(item_text=True), [first, second])
    assert policy.item_text


def test_a_record_of_an_earlier_version_shows_titles(tmp_path: Path) -> None:
    (tmp_path / "prompt.json").write_text('{"template": "{history} {candidates}"}')
    record = read_prompt_record(tmp_path)
    assert record is not None and not record.item_text
