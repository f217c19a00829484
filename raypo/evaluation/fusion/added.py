"""What a language model adds to the best that can be made without it, on the same rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2, permutation_test

from raypo.data.conditional_logit import (
    cross_fitted_log_likelihood,
    fit_conditional_logit,
)
from raypo.evaluation.intervals import Resampling, bootstrap_interval
from raypo.evaluation.metrics import hit_at, ndcg_at, target_ranks
from raypo.evaluation.significance import mcnemar_exact

NEW = "new items"
_FEWEST_ROWS = 20  # of a slice; fewer say nothing
_SIGN_FLIPS = 9999
# Of standard errors: what a test at 5% finds with a probability of 80%.
_DETECTABLE = 2.8


@dataclass(frozen=True)
class Rows:
    """Rows that models scored.

    Attributes:
        scores: name -> [n, c] standardised scores of each model.
        targets: [n] position of the target among the candidates.
        users: [n].
        new: [n, c] candidates that training never showed, for which models have weights of their
            own: what knows ids alone knows nothing of them. None has one weight for a model.
    """

    scores: dict[str, np.ndarray]
    targets: np.ndarray
    users: np.ndarray
    new: np.ndarray | None = None

    def features(self, names: list[str]) -> np.ndarray:
        """Features [n, c, m] of these models, as `feature_names` lists them."""
        shape = next(iter(self.scores.values())).shape
        columns = [self.scores[name] for name in names]
        if self.new is not None:
            columns = [own for one in columns for own in (one * ~self.new, one * self.new)]
            columns.append(self.new.astype(float))
        return np.stack(columns, axis=2) if columns else np.empty((*shape, 0))

    def feature_names(self, names: list[str]) -> list[str]:
        """Names of the features of these models: [m] of them."""
        if self.new is None:
            return list(names)
        return [*(one for name in names for one in (name, f"{name}, {NEW}")), NEW]


@dataclass(frozen=True)
class Difference:
    """A metric of one model less that of another, on the same rows.

    Attributes:
        value, other: the metric of both. difference, low, high: with its 95% paired bootstrap
            interval over users.
        p_value: two-sided, of random signs of users' differences.
        smallest_detectable: difference that these rows would have shown with a probability of 80%.
        n: rows.
    """

    value: float
    other: float
    difference: float
    low: float
    high: float
    p_value: float
    smallest_detectable: float
    n: int


def compare_metric(
    own: np.ndarray, other: np.ndarray, users: np.ndarray, resampling: Resampling
) -> Difference:
    """Compare a metric's values [n] of two models on the same rows."""
    low, high = bootstrap_interval(
        own - other, resampling.num_bootstrap, resampling.seed, users=users
    )
    is_hit = bool(np.isin(own, (0.0, 1.0)).all() and np.isin(other, (0.0, 1.0)).all())
    p_value = (
        mcnemar_exact(own > 0.5, other > 0.5, users)
        if is_hit
        else _sign_flip_p(own - other, users, resampling.seed)
    )
    error = _clustered_error(own - other, users)
    return Difference(
        float(own.mean()),
        float(other.mean()),
        float((own - other).mean()),
        low,
        high,
        p_value,
        _DETECTABLE * error,
        len(own),
    )


def compare_scores(
    own: np.ndarray, other: np.ndarray, rows: Rows, resampling: Resampling
) -> dict[str, dict[str, Any]]:
    """Differences of HitRatio@1 and NDCG@5 between scores [n, c], by metric."""
    ranks = [target_ranks(scores, rows.targets) for scores in (own, other)]
    metrics = {
        "HitRatio@1": [hit_at(1, *rank) for rank in ranks],
        "NDCG@5": [ndcg_at(5, *rank) for rank in ranks],
    }
    return {
        name: asdict(compare_metric(first, second, rows.users, resampling))
        for name, (first, second) in metrics.items()
    }


def likelihood_gain(rows: Rows, names: list[str], without: list[str]) -> dict[str, float]:
    """What more models add to the likelihood of validation rows.

    Returns:
        likelihood_ratio, degrees_of_freedom and p_value of the classical test, which takes rows of
        one user for independent; and nats_per_row with its standard error over users, by weights
        that were fitted to other users' rows.
    """
    more, fewer = rows.features(names), rows.features(without)
    fits = [fit_conditional_logit(each, rows.targets, rows.users) for each in (more, fewer)]
    ratio = 2 * (fits[0].log_likelihood - fits[1].log_likelihood)
    freedom = more.shape[2] - fewer.shape[2]
    gain = cross_fitted_log_likelihood(more, rows.targets, rows.users)
    gain = gain - cross_fitted_log_likelihood(fewer, rows.targets, rows.users)
    return {
        "likelihood_ratio": float(ratio),
        "degrees_of_freedom": freedom,
        "p_value": float(chi2.sf(max(ratio, 0.0), freedom)),
        "nats_per_row": float(gain.mean()),
        "standard_error": _clustered_error(gain, rows.users),
        "n": len(gain),
    }


def by_slice(
    own: np.ndarray,
    other: np.ndarray,
    rows: Rows,
    slices: dict[str, np.ndarray],
    resampling: Resampling,
) -> dict[str, dict[str, Any]]:
    """`compare_scores` on parts of the rows.

    Args:
        own: scores [n, c].
        other: scores [n, c].
        rows: the rows.
        slices: name -> bool [n].
        resampling: of the intervals.

    Returns:
        By slice: n, and the differences, or None where the slice has too few rows.
    """
    result: dict[str, dict[str, Any]] = {}
    for name, chosen in slices.items():
        count = int(chosen.sum())
        part = Rows({}, rows.targets[chosen], rows.users[chosen])
        compared = (
            compare_scores(own[chosen], other[chosen], part, resampling)
            if count >= _FEWEST_ROWS
            else None
        )
        result[name] = {"n": count, "added": compared}
    return result


def row_slices(
    targets: np.ndarray, popularity: np.ndarray, lengths: np.ndarray
) -> dict[str, np.ndarray]:
    """Parts of the rows in which a language model may know what recommenders do not.

    Args:
        targets: [n] item ids.
        popularity: [items] occurrences in the training sequences.
        lengths: [n] items of the histories.
    """
    seen = popularity[targets]
    return {
        "all rows": np.ones(len(targets), dtype=bool),
        "targets never seen in training": seen == 0,
        "targets seen at most 5 times": seen <= 5,
        "targets seen at most 20 times": seen <= 20,
        "histories of at most 5 items": lengths <= 5,
    }


def sentence(name: str, added: dict[str, Any]) -> str:
    """One line on what a language model adds."""
    hits = added["HitRatio@1"]
    interval = f"{hits['difference']:+.3f} [{hits['low']:+.3f}, {hits['high']:+.3f}]"
    if hits["low"] > 0:
        verdict = "it adds to the best that was made without it"
    elif hits["high"] < 0:
        verdict = "it makes the best without it worse"
    else:
        verdict = (
            "nothing that these rows could show (a difference of "
            f"{hits['smallest_detectable']:.3f} would likely have been seen)"
        )
    return (
        f"Fused with {name}: HitRatio@1 {hits['value']:.3f} against {hits['other']:.3f} without "
        f"it, {interval}, p = {hits['p_value']:.3f}: {verdict}."
    )


def _sign_flip_p(differences: np.ndarray, users: np.ndarray, seed: int) -> float:
    """Two-sided p-value of users' summed differences under random signs."""
    summed = _user_sums(differences, users)
    summed = summed[summed != 0]
    if len(summed) < 2:  # both signs of one user's difference are as far from 0
        return 1.0
    tested = permutation_test(
        (summed,),
        lambda values, axis: np.sum(values, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_SIGN_FLIPS,
        rng=np.random.default_rng(seed),
    )
    return float(tested.pvalue)


def _clustered_error(values: np.ndarray, users: np.ndarray) -> float:
    """Standard error of a mean whose rows hang together by user."""
    centred = _user_sums(values - values.mean(), users)
    return float(np.sqrt((centred**2).sum()) / len(values))


def _user_sums(values: np.ndarray, users: np.ndarray) -> np.ndarray:
    numbers, _ = pd.factorize(users)
    return np.asarray(np.bincount(numbers, values))
