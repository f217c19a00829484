"""`prompt.json` beside an adapter: the template and the hints that it was trained with.

An adapter that is asked with other prompts than it was trained with answers badly, and nothing
tells. So what is not set takes these values wherever an adapter is used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from raypo.config import PolicyConfig
from raypo.config.base import BaseConfig
from raypo.config.policy import HintFeature, HintKind, HintSources
from raypo.errors import InputError
from raypo.io.files import read_json, write_json

logger = logging.getLogger("raypo")

_FILE = "prompt.json"
_SETTINGS = (
    "item_text",
    "hints",
    "hints_recommender",
    "hint_features",
    "hint_marker",
    "hint_fusion",
    "hints_in_fold",
)


class PromptRecord(BaseConfig):
    """What prompts are made from.

    Attributes:
        template: text of the template.
        item_text, hints, hints_recommender, hint_features, hint_marker, hint_fusion,
        hints_in_fold: as in `PolicyConfig`.
    """

    template: str
    item_text: bool = False
    hints: HintKind = "none"
    hints_recommender: HintSources | None = None
    hint_features: tuple[HintFeature, ...] = ()
    hint_marker: Literal["before", "after"] = "before"
    hint_fusion: bool = False
    hints_in_fold: bool = False


def prompt_record(policy: PolicyConfig, template: str) -> PromptRecord:
    """The record of a policy whose hints are settled (`with_recorded_prompt`)."""
    values = {name: getattr(policy, name) for name in _SETTINGS}
    return PromptRecord(template=template, **values | _settled(policy))


def _settled(policy: PolicyConfig) -> dict[str, Any]:
    """Settings that no adapter gave: what is not set is off."""
    return {"hints": policy.hints or "none", "item_text": bool(policy.item_text)}


def write_prompt_record(adapter: Path, record: PromptRecord) -> None:
    """Write `prompt.json` into an adapter's folder."""
    write_json(adapter / _FILE, record.model_dump(mode="json"))


def read_prompt_record(adapter: Path) -> PromptRecord | None:
    """The record in an adapter's folder; None where there is none.

    Raises:
        InputError: it cannot be read.
    """
    if not (adapter / _FILE).exists():
        return None
    try:
        return PromptRecord.model_validate(read_json(adapter / _FILE))
    except ValidationError as error:
        raise InputError(f"{adapter / _FILE}: {error}") from None


def with_recorded_prompt(
    policy: PolicyConfig, adapters: Iterable[Path | None]
) -> tuple[PolicyConfig, str | None]:
    """The policy with the hints, and the template, that its adapters were trained with.

    Settings that were given stay; one that differs from the adapter's is warned about.

    Args:
        policy: as configured.
        adapters: that are used with the same prompts; None is the base model, which takes any.

    Returns:
        The policy, and the text of the template; None where the policy names one, or for the
        built-in one.

    Raises:
        InputError: the adapters were trained with different prompts.
    """
    records = {}
    for folder in adapters:
        record = read_prompt_record(folder) if folder is not None else None
        if folder is not None and record is not None:
            records[folder] = record
    if not records:
        return policy.model_copy(update=_settled(policy)), None
    first, record = next(iter(records.items()))
    for folder, other in records.items():
        if _prompts(other, policy) != _prompts(record, policy):
            raise InputError(
                f"{folder}: was trained with other prompts than {first} ({_FILE} of both differ); "
                "evaluate them separately, or set policy.prompt and policy.hints"
            )
    return _filled_in(policy, record, first), record.template if policy.prompt is None else None


def _prompts(record: PromptRecord, policy: PolicyConfig) -> dict[str, Any]:
    """What of a record decides about prompts: all that the policy does not set."""
    values = record.model_dump(mode="json", exclude={"hints_in_fold"})
    if policy.prompt is not None:
        values.pop("template")
    if policy.item_text is not None:
        values.pop("item_text")
    if policy.hints is not None:
        values = {name: values.get(name) for name in ("template", "item_text")}
    elif policy.hints_recommender is not None:
        values.pop("hints_recommender")
    return values


def _filled_in(policy: PolicyConfig, record: PromptRecord, adapter: Path) -> PolicyConfig:
    _warn_about_other_settings(policy, record, adapter)
    updates = {name: getattr(record, name) for name in _SETTINGS}
    if policy.item_text is not None:
        updates.pop("item_text")
    if policy.hints not in (None, record.hints):
        updates = {name: value for name, value in updates.items() if name == "item_text"}
    if policy.hints_recommender is not None:
        updates.pop("hints_recommender")
    return policy.model_copy(update=updates)


def _warn_about_other_settings(policy: PolicyConfig, record: PromptRecord, adapter: Path) -> None:
    for name in ("hints", "item_text"):
        given, recorded = getattr(policy, name), getattr(record, name)
        if given is not None and given != recorded:
            logger.warning(
                "policy.%s=%s: %s was trained with %s=%s, and answers badly with other prompts",
                name,
                given,
                adapter,
                name,
                recorded,
            )
