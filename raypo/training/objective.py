"""Build the objective of a configuration; an error names the setting that is wrong."""

from __future__ import annotations

from raypo.config import AlignConfig, ObjectiveConfig, SftConfig
from raypo.errors import InputError
from raypo.objectives import (
    Objective,
    OptionError,
    SftObjective,
    build_objective,
    compose_objective,
    parse_options,
    parse_parts,
)


def make_objective(
    config: SftConfig | AlignConfig, setting: str = "objective"
) -> Objective | SftObjective:
    """Build the objective of a stage; needs no data and takes no time.

    Args:
        config: of the stage.
        setting: dotted path of the objective in the configuration that the user wrote.

    Raises:
        InputError: a wrong name, part, option or value, named `objective.NAME`; or parts that do
            not go together.
    """
    if not isinstance(config, AlignConfig):
        return build_objective("sft")
    chosen = config.objective
    try:
        if chosen.name is None:
            return compose_objective(process_group=None, **chosen.parts)
        return build_objective(chosen.name, process_group=None, **chosen.options)
    except OptionError as error:
        raise InputError(f"{setting}.{error}") from error
    except ValueError as error:
        raise InputError(f"{setting}: {error}") from error


def with_parsed_objective(config: AlignConfig) -> AlignConfig:
    """The same configuration, with each option of the objective converted to its type.

    Raises:
        InputError: see `make_objective`.
    """
    make_objective(config)
    chosen = config.objective
    if chosen.name is None:
        parsed = ObjectiveConfig.model_validate(parse_parts(chosen.parts))
    else:
        options = parse_options(chosen.name, chosen.options)
        parsed = ObjectiveConfig.model_validate({"name": chosen.name, "options": options})
    return config.model_copy(update={"objective": parsed})
