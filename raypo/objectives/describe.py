"""What each preset is, in words: for the command line and the docs."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from raypo.objectives.build import build_objective, preset_options
from raypo.objectives.objective import Objective, composition
from raypo.objectives.presets import PRESETS

_MEANING = {
    "beta": "temperature of the reward (beta_0 where it moves)",
    "gamma": "margin, gamma_0 where it moves; of DynamicPO's beta in the dynamicpo presets",
    "alpha": "how strongly the margin (or beta) follows what it follows",
    "rho": "share of the other users whose negatives are taken",
    "momentum": "m of the moving averages",
    "sharing_gradient": "all, local or own: how far a loss reaches into shared log-probs",
    "mask_collisions": "leave out shared negatives that the user chose or has in the history",
    "similarity": "inner or cosine, of users' embeddings",
    "length_normalised": "divide log-probs by the number of response tokens",
    "dynamic_margin": "let the margin follow the recommender's confidence",
    "dynamic_beta": "give each negative its own beta",
    "boundary_alpha": "DynamicPO's alpha",
    "boundary_gamma": "DynamicPO's gamma",
    "confidence_start": "R_0 before the first batch, else the first batch's confidence",
    "eps_max": "upper bound of a negative's chance to be one the user likes",
    "tau": "width of the step between liked and not, in recommender scores",
    "oracle": "(batch, items) -> eps in the recommender's place; from Python only",
    "selection": "all, boundary, violations, clusters or top-k, else the preset's own",
    "top_k": "k of selection top-k",
}


@dataclass(frozen=True)
class Description:
    """A preset in words.

    Attributes:
        name: what `build_objective` takes.
        source: paper and section or equation.
        formula: in words, one paragraph.
        parts: composition by part; empty for sft.
        options: (name, default, meaning).
    """

    name: str
    source: str
    formula: str
    parts: dict[str, str]
    options: tuple[tuple[str, Any, str], ...]


def describe(name: str) -> Description:
    """A preset in words.

    Raises:
        ValueError: unknown name.
    """
    objective = build_objective(name)
    source, _, formula = inspect.cleandoc(PRESETS[name].__doc__ or "").partition("\n\n")
    return Description(
        name=name,
        source=source.removesuffix("."),
        formula=" ".join(formula.split()),
        parts=composition(objective) if isinstance(objective, Objective) else {},
        options=tuple(
            (option, default, _MEANING[option]) for option, default in preset_options(name).items()
        ),
    )


def markdown_table() -> str:
    """All presets as the table of docs/objectives.md."""
    parts = ["reward", "negatives", "selection", "temperature", "aggregation", "margin", "link"]
    lines = [
        "| " + " | ".join(["name", *parts, "source"]) + " |",
        "|" + " --- |" * (len(parts) + 2),
    ]
    for name in PRESETS:
        described = describe(name)
        cells = [described.parts.get(part, "") for part in parts]
        lines.append("| " + " | ".join([f"`{name}`", *cells, described.source]) + " |")
    return "\n".join(lines) + "\n"
