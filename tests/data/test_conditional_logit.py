"""The conditional logit against an independent fit, and on rows whose weights are known."""

import numpy as np
import pytest
import torch

from raypo.data.conditional_logit import (
    cross_fitted_log_likelihood,
    fit_conditional_logit,
    fused_scores,
    row_log_likelihood,
    standardised,
)

WEIGHTS = np.array([1.2, -0.4, 0.0])


def rows(count=3000, candidates=8, users=600, seed=0):
    """Rows whose targets are drawn by the model with WEIGHTS."""
    generator = np.random.default_rng(seed)
    features = standardised(generator.normal(size=(count, candidates))[..., None].repeat(3, 2))
    features = np.stack(
        [standardised(generator.normal(size=(count, candidates))) for _ in WEIGHTS], axis=2
    )
    noise = generator.gumbel(size=(count, candidates))
    targets = (features @ WEIGHTS + noise).argmax(axis=1)
    return features, targets, generator.integers(users, size=count)


def test_the_fit_is_that_of_an_independent_optimiser() -> None:
    features, targets, users = rows(400)
    fit = fit_conditional_logit(features, targets, users)
    weights = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, tolerance_grad=1e-12, lr=0.5)

    def closure():
        optimiser.zero_grad()
        scores = torch.from_numpy(features) @ weights
        loss = (
            torch.nn.functional.cross_entropy(scores, torch.from_numpy(targets), reduction="sum")
            + 1e-6 * len(features) * (weights**2).sum() / 2
        )
        loss.backward()
        return loss

    for _ in range(20):
        optimiser.step(closure)
    assert np.allclose(fit.weights, weights.detach().numpy(), atol=1e-6)
    expected = -torch.nn.functional.cross_entropy(
        torch.from_numpy(features) @ weights, torch.from_numpy(targets), reduction="sum"
    )
    assert fit.log_likelihood == pytest.approx(float(expected.detach()), abs=1e-6)


def test_known_weights_are_found_within_their_errors() -> None:
    fit = fit_conditional_logit(*rows())
    assert (np.abs(fit.weights - WEIGHTS) < 3.5 * fit.errors).all()
    # With independent rows the robust errors are the classical ones: about 1 / sqrt(n v).
    assert (fit.errors < 0.04).all() and (fit.errors > 0.01).all()


def test_errors_count_users_and_not_rows() -> None:
    features, targets, _ = rows(500)
    single = fit_conditional_logit(features, targets, np.arange(500))
    four = [np.concatenate([one] * 4) for one in (features, targets, np.arange(500))]
    repeated = fit_conditional_logit(*four)
    assert np.allclose(repeated.weights, single.weights, atol=1e-6)
    assert np.allclose(repeated.errors, single.errors, rtol=1e-3)


def test_scores_that_separate_all_rows_have_finite_weights() -> None:
    features = np.zeros((50, 4, 1))
    targets = np.arange(50) % 4
    features[np.arange(50), targets, 0] = 1.0
    fit = fit_conditional_logit(standardised(features[..., 0])[..., None], targets, targets)
    assert np.isfinite(fit.weights).all()
    scores = fused_scores(features, fit.weights)
    assert (scores.argmax(axis=1) == targets).all()


def test_a_model_that_scores_all_candidates_alike_gets_no_weight() -> None:
    features, targets, users = rows(300)
    flat = np.concatenate([features, standardised(np.full((300, 8), 3.0))[..., None]], axis=2)
    fit = fit_conditional_logit(flat, targets, users)
    assert abs(fit.weights[3]) < 1e-9


def test_cross_fitted_likelihood_is_by_other_users_weights() -> None:
    features, targets, users = rows(300, users=40)
    found = cross_fitted_log_likelihood(features, targets, users, folds=2)
    import pandas as pd

    numbers = pd.factorize(users)[0]
    own = numbers % 2 == 0
    rest = fit_conditional_logit(features[~own], targets[~own], users[~own])
    assert np.allclose(found[own], row_log_likelihood(features[own], rest.weights, targets[own]))
