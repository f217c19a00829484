"""Preference objectives, composed from parts: pure tensor code that knows no model and no trainer.

objective = build_objective("napo", beta=1.0, gamma=1.0, alpha=0.3, rho=0.7)
out = objective(PreferenceBatch(chosen_logps, rejected_logps, ...))
out.loss.backward()
"""

from raypo.objectives.batch import ObjectiveOutput, PreferenceBatch
from raypo.objectives.objective import Objective
from raypo.objectives.presets import available_objectives, build_objective

__all__ = [
    "Objective",
    "ObjectiveOutput",
    "PreferenceBatch",
    "available_objectives",
    "build_objective",
]
