"""The conditional logit that fuses scores (McFadden 1974).

P(target | candidates) = softmax over the candidates of sum_k w_k z_k, with z_k the scores of model
k standardised over a row's candidates.

Shapes: n rows, c candidates, m models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import logsumexp

# Weight of the squared weights, for each row: scores that separate all rows would have no maximum.
_RIDGE = 1e-6


@dataclass(frozen=True)
class FusionFit:
    """Fitted weights.

    Attributes:
        weights: [m].
        errors: [m] standard errors, robust to rows of one user that hang together.
        log_likelihood: of the rows, in nats.
    """

    weights: np.ndarray
    errors: np.ndarray
    log_likelihood: float


def standardised(scores: np.ndarray) -> np.ndarray:
    """Scores [n, c] with mean 0 and deviation 1 over the candidates of each row."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    return np.asarray(centred / np.where(deviation > 0, deviation, 1.0))


def fit_conditional_logit(
    features: np.ndarray, targets: np.ndarray, users: np.ndarray
) -> FusionFit:
    """Fit the weights by maximum likelihood.

    Args:
        features: [n, c, m] standardised scores.
        targets: [n] position of the target among the candidates.
        users: [n] user of each row, for the standard errors.
    """
    count = features.shape[2]
    if count == 0:
        return FusionFit(
            np.empty(0),
            np.empty(0),
            float(row_log_likelihood(features, np.empty(0), targets).sum()),
        )
    ridge = _RIDGE * len(features)

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value = -row_log_likelihood(features, weights, targets).sum()
        gradient = -_row_scores(features, weights, targets).sum(axis=0)
        return value + ridge * weights @ weights / 2, gradient + ridge * weights

    def hessian(weights: np.ndarray) -> np.ndarray:
        return _information(features, weights) + ridge * np.eye(count)

    found = minimize(
        objective, np.zeros(count), jac=True, hess=hessian, method="trust-exact", tol=1e-10
    )
    weights = np.asarray(found.x)
    errors = _robust_errors(features, weights, targets, users, hessian(weights))
    return FusionFit(weights, errors, float(row_log_likelihood(features, weights, targets).sum()))


def fused_scores(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Scores [n, c] of features [n, c, m]."""
    return np.asarray(features @ weights)


def row_log_likelihood(
    features: np.ndarray, weights: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """Log-probability [n] of each row's target."""
    scores = fused_scores(features, weights)
    own = scores[np.arange(len(scores)), targets]
    return np.asarray(own - logsumexp(scores, axis=1))


def cross_fitted_log_likelihood(
    features: np.ndarray, targets: np.ndarray, users: np.ndarray, folds: int = 5
) -> np.ndarray:
    """Log-probability [n] of each row's target by weights that were fitted to other users' rows."""
    numbers, _ = pd.factorize(users)
    result = np.empty(len(features))
    for fold in range(folds):
        own = numbers % folds == fold
        if own.any():
            rest = fit_conditional_logit(features[~own], targets[~own], users[~own])
            result[own] = row_log_likelihood(features[own], rest.weights, targets[own])
    return result


def _probabilities(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    scores = fused_scores(features, weights)
    return np.asarray(np.exp(scores - logsumexp(scores, axis=1, keepdims=True)))


def _row_scores(features: np.ndarray, weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Gradient [n, m] of each row's log-likelihood."""
    expected = np.einsum("nc,ncm->nm", _probabilities(features, weights), features)
    return np.asarray(features[np.arange(len(features)), targets] - expected)


def _information(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Negative second derivative [m, m] of the log-likelihood."""
    probabilities = _probabilities(features, weights)
    expected = np.einsum("nc,ncm->nm", probabilities, features)
    squares = np.einsum("nc,ncm,nck->mk", probabilities, features, features, optimize=True)
    return np.asarray(squares - expected.T @ expected)


def _robust_errors(
    features: np.ndarray,
    weights: np.ndarray,
    targets: np.ndarray,
    users: np.ndarray,
    hessian: np.ndarray,
) -> np.ndarray:
    """Standard errors by the sandwich of users' summed scores (Liang and Zeger 1986)."""
    numbers, unique = pd.factorize(users)
    summed = np.zeros((len(unique), len(weights)))
    np.add.at(summed, numbers, _row_scores(features, weights, targets))
    inverse = np.linalg.inv(hessian)
    return np.sqrt(np.diag(inverse @ (summed.T @ summed) @ inverse))
