"""What places in the list of candidates do to recommendations: nothing, as they should."""

from __future__ import annotations

import numpy as np

# Where the interval of a mean position bias lies beyond this, reports say so. On a few hundred rows
# a model that sees no places has come to 0.11 by chance.
NOTABLE_POSITION_BIAS = 0.1


def position_bias(chosen: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Place of the chosen candidates in the list less the target's, [n]; -1 is first, 1 last.

    Its mean is 0 where places do not matter, since targets stand anywhere. Less the target's,
    because the targets of a few hundred rows happen to stand a little to one side.

    Args:
        chosen: bool [n, c], at least one of each row; of several the mean counts.
        targets: position of the target among the candidates, [n].
    """
    places = np.linspace(-1, 1, chosen.shape[1]) if chosen.shape[1] > 1 else np.zeros(1)
    bias: np.ndarray = (chosen * places).sum(axis=1) / chosen.sum(axis=1) - places[targets]
    return bias


def position_remark(mean: float, low: float, high: float) -> str:
    """What a mean position bias with its interval says; empty where it says nothing."""
    if low < NOTABLE_POSITION_BIAS and high > -NOTABLE_POSITION_BIAS:
        return ""
    where = "late" if mean > 0 else "early"
    return (
        f"candidates that stand {where} in the list are preferred (PositionBias {mean:+.2f} "
        f"[{low:+.2f}, {high:+.2f}]); places say nothing about users."
    )
