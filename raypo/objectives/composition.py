"""The parts of an objective in words, and which of them go together."""

from __future__ import annotations

from raypo.objectives.margins import FixedMargin
from raypo.objectives.objective import Objective


def composition(objective: Objective) -> dict[str, str]:
    """The parts of an objective in words, by part."""
    parts = {
        "reward": objective.reward.kind,
        "negatives": objective.negatives.kind,
        "selection": objective.selection.kind,
        "temperature": objective.temperature.kind,
        "aggregation": objective.aggregation,
        "margin": objective.margin.kind,
        "link": objective.link.kind,
    }
    if objective.margin == FixedMargin(0.0):
        parts["margin"] = "none"
    return parts


def check_composition(objective: Objective) -> None:
    """Refuse combinations of parts that no formula defines.

    Raises:
        ValueError: names the two parts and what goes together.
    """
    parts = composition(objective)
    if parts["link"] == "smoothed" and parts["aggregation"] != "pairwise":
        raise ValueError(
            f"link 'smoothed' has one probability per pair and needs aggregation "
            f"'pairwise', not {parts['aggregation']!r}"
        )
    if objective.margin.per_pair and parts["aggregation"] == "merged":
        raise ValueError(
            f"margin {parts['margin']!r} belongs to each pair here, but aggregation 'merged' adds "
            "pairs up before the margin; use 'pairwise', 'softmax' or 'mean'"
        )
    if parts["temperature"] == "per-batch" and not objective.reward.needs_reference:
        raise ValueError(
            f"temperature 'per-batch' (beta-DPO) measures how far rewards moved from the "
            f"reference, and reward {parts['reward']!r} has none; use 'reference'"
        )
