"""Reading a configuration from a YAML file and `key=value` overrides.

Overrides (`optimiser.learning_rate=1e-4`) take precedence over the file, and the file over the
defaults. Every error names the file, the setting and what was expected.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from raypo.config.overrides import parse_override, with_settings
from raypo.errors import InputError

ModelT = TypeVar("ModelT", bound=BaseModel)


def load_config(
    model: type[ModelT], file: Path | None = None, overrides: Sequence[str] = ()
) -> ModelT:
    """Read a stage's configuration.

    Args:
        model: the stage's pydantic model.
        file: YAML file, or None for defaults and overrides alone.
        overrides: `dotted.key=value`; the value is read as YAML.

    Raises:
        InputError: unreadable file, unknown key (with the nearest known one), or a wrong value.
    """
    values = read_yaml(file) if file is not None else {}
    return parse_overridden(model, values, overrides, str(file) if file else "command line")


def parse_overridden(
    model: type[ModelT], values: Mapping[str, Any], overrides: Sequence[str], source: str
) -> ModelT:
    """Validate `values` with `dotted.key=value` overrides as a configuration.

    Raises:
        InputError: an override or one or more settings are wrong.
    """
    changed = dict(values)
    for override in overrides:
        key, value = parse_override(override)
        changed = with_settings(changed, {key: value}, source="command line")
    return parse_config(model, changed, source=source)


def parse_config(model: type[ModelT], values: Mapping[str, Any], source: str) -> ModelT:
    """Validate `values` as a configuration.

    Args:
        model: the stage's pydantic model.
        values: settings, nested by group.
        source: where the values come from, for the error.

    Raises:
        InputError: one or more settings are wrong; the message lists all of them.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        lines = [_explain(model, dict(problem)) for problem in error.errors()]
        raise InputError(f"{source}: " + "; ".join(lines)) from None


def dump_config(config: BaseModel) -> str:
    """The resolved configuration as YAML, readable by `load_config`."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_yaml(file: Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        InputError: it cannot be read, or is no mapping.
    """
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{file}: not valid YAML ({error})") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{file}: expected a mapping of settings, got {type(values).__name__}")
    return values


def _explain(model: type[BaseModel], problem: dict[str, Any]) -> str:
    # Parts in brackets are tags of a union's members, not keys.
    location = [str(part) for part in problem["loc"] if not str(part).startswith("<")]
    where = ".".join(location) or "configuration"
    if problem["type"] == "extra_forbidden":
        group = _model_at(model, location[:-1])
        new_name = getattr(group, "renamed", {}).get(location[-1])
        if new_name is not None:
            return f"{where}: renamed; the setting is now {new_name!r}"
        if location[-1] in getattr(group, "set_by_pipeline", ()):
            return f"{where}: the pipeline sets this itself; leave it out"
        known = list(group.model_fields) if group is not None else []
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(known)
        return f"{where}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{where}: required, not given"
    if problem["type"] == "value_error":
        message = str(problem["msg"]).removeprefix("Value error, ")
        if not location or message.startswith((f"{where}:", f"{where}.")):
            return message
        if message.startswith((f"{location[-1]}:", f"{location[-1]}.")):
            return ".".join([*location[:-1], message])
        return f"{where}: {message}"
    return f"{where}: {problem['msg']}, got {problem['input']!r}"


def _model_at(model: type[BaseModel], location: Sequence[str]) -> type[BaseModel] | None:
    """The model of the group of settings at `location`; None where there is no group."""
    for part in location:
        field = model.model_fields.get(part)
        if field is None:  # a key of a dictionary, or the index of a list
            continue
        inner = _model_inside(field.annotation)
        if inner is None:
            return None
        model = inner
    return model


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is Union or get_args(annotation):
        for argument in get_args(annotation):
            found = _model_inside(argument)
            if found:
                return found
    return None
