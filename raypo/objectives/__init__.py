"""Preference objectives, composed from parts: pure tensor code without a model or a trainer.

objective = build_objective("napo", beta=1.0, gamma=1.0, alpha=0.3, rho=0.7)
out = objective(PreferenceBatch(chosen_logps, rejected_logps, ...))
out.loss.backward()
"""

from raypo.objectives.batch import ObjectiveOutput, PreferenceBatch
from raypo.objectives.build import (
    available_objectives,
    build_objective,
    compose_objective,
    parse_options,
    parse_parts,
    preset_options,
)
from raypo.objectives.composition import composition
from raypo.objectives.objective import Objective
from raypo.objectives.options import OptionError
from raypo.objectives.sft import SftObjective

__all__ = [
    "Objective",
    "ObjectiveOutput",
    "OptionError",
    "PreferenceBatch",
    "SftObjective",
    "available_objectives",
    "build_objective",
    "compose_objective",
    "composition",
    "parse_options",
    "parse_parts",
    "preset_options",
]
