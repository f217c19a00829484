"""Preference objectives, composed from parts: pure tensor code that knows no model and no trainer.

objective = build_objective("napo", beta=1.0, gamma=1.0, alpha=0.3, rho=0.7)
out = objective(PreferenceBatch(chosen_logps, rejected_logps, ...))
out.loss.backward()
"""

from raypo.objectives.batch import ObjectiveOutput, PreferenceBatch
from raypo.objectives.build import (
    available_objectives,
    build_objective,
    compose_objective,
    preset_options,
)
from raypo.objectives.objective import Objective, composition

__all__ = [
    "Objective",
    "ObjectiveOutput",
    "PreferenceBatch",
    "available_objectives",
    "build_objective",
    "compose_objective",
    "composition",
    "preset_options",
]
