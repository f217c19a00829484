"""Named objectives: a preset is a few lines over the parts.

The docstring of a preset is what `raypo objectives NAME` shows: its source, then its formula, with
R the reward before beta, g_i = beta (R+ - R-_i) and sigma the logistic function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from raypo.objectives.links import Oracle, Smoothed
from raypo.objectives.margins import ConfidenceMargin, FixedMargin, InstanceMargin, Margin
from raypo.objectives.objective import Objective
from raypo.objectives.rewards import REWARDS, Reward
from raypo.objectives.selection import Boundary
from raypo.objectives.sft import SftObjective
from raypo.objectives.sharing import NegativeSet, Own, Shared, SharingGradient, Similarity
from raypo.objectives.temperature import BetaPerBatch, BetaPerNegative, FixedBeta, Temperature


def _sft() -> SftObjective:
    """Supervised fine-tuning: the token-mean negative log-likelihood of the chosen response."""
    return SftObjective()


def _dpo(beta: float = 0.1) -> Objective:
    """DPO, arXiv 2305.18290, eq. 7.

    mean_i -log sigma(g_i), R = log pi(y|x) - log ref(y|x). Made for one negative; pairs of several
    are averaged.
    """
    return Objective("dpo", temperature=FixedBeta(beta))


def _simpo(beta: float = 2.0, gamma: float = 1.0) -> Objective:
    """SimPO, arXiv 2405.14734, eq. 6.

    mean_i -log sigma(g_i - gamma), R = log pi(y|x) / |y|. Made for one negative; pairs of several
    are averaged.
    """
    reward = REWARDS["free-normalised"]
    return Objective("simpo", reward, temperature=FixedBeta(beta), margin=FixedMargin(gamma))


def _s_dpo(beta: float = 1.0) -> Objective:
    """S-DPO, arXiv 2406.09215: softmax over the negatives.

    -log sigma(-log sum_i exp(-g_i)), R = log pi(y|x) - log ref(y|x).
    """
    return Objective("s-dpo", temperature=FixedBeta(beta), aggregation="softmax")


def _s_dpo_ns(
    beta: float = 1.0,
    rho: float = 0.7,
    sharing_gradient: SharingGradient = "all",
    mask_collisions: bool = True,
    similarity: Similarity = "inner",
) -> Objective:
    """S-DPO with NAPO's in-batch negative sharing, arXiv 2508.09653, section 3.2.

    -log sigma(-log sum_i exp(-g_i)) over the own negatives and those of the
    floor((B - 1) rho) most similar users; R = log pi(y|x) - log ref(y|x).
    """
    negatives = _shared(rho, sharing_gradient, mask_collisions, similarity)
    return Objective(
        "s-dpo+ns", negatives=negatives, temperature=FixedBeta(beta), aggregation="softmax"
    )


def _sims_dpo(beta: float = 1.0, gamma: float = 0.0, length_normalised: bool = False) -> Objective:
    """S-DPO without a reference: NAPO without sharing and margin, arXiv 2508.09653, Table 3.

    -log sigma(-log sum_i exp(-g_i) - gamma), R = log pi(y|x), gamma 0 unless given.
    """
    return Objective(
        "sims-dpo",
        _free(length_normalised),
        temperature=FixedBeta(beta),
        aggregation="softmax",
        margin=FixedMargin(gamma),
    )


def _dmpo(beta: float = 1.0) -> Objective:
    """DMPO, arXiv 2405.16127: the chosen against the mean of the negatives.

    -log sigma(mean_i g_i), R = log pi(y|x) - log ref(y|x).
    """
    return Objective("dmpo", temperature=FixedBeta(beta), aggregation="mean")


def _mppo(beta: float = 1.0) -> Objective:
    """MPPO's Pair-MNM, arXiv 2412.15244: likelihoods, all pairs merged.

    -log sigma(sum_i g_i), R = p(y) = exp(log pi(y|x) / |y|). MPPO itself has no beta.
    """
    return Objective(
        "mppo", REWARDS["likelihood"], temperature=FixedBeta(beta), aggregation="merged"
    )


def _alpha_dpo(
    beta: float = 2.0, gamma: float = 1.0, alpha: float = 0.1, momentum: float = 0.9
) -> Objective:
    """alpha-DPO, arXiv 2410.10148: SimPO with a margin of each pair's own.

    mean_i -log sigma(g_i - gamma - alpha M*_i), R = log pi(y|x) / |y|; M*_i is how far the policy
    has moved this pair from the reference (length-normalised, times beta), standardised by moving
    averages of its mean and standard deviation.
    """
    margin = InstanceMargin(gamma, alpha, momentum)
    reward = REWARDS["free-normalised"]
    return Objective("alpha-dpo", reward, temperature=FixedBeta(beta), margin=margin)


def _beta_dpo(beta: float = 0.1, alpha: float = 0.6, momentum: float = 0.9) -> Objective:
    """beta-DPO, arXiv 2407.08639: DPO with a beta for each batch.

    mean_i -log sigma(beta_batch (R+ - R-_i)), R = log pi(y|x) - log ref(y|x),
    beta_batch = [1 + alpha (mean M - M_0)] beta, at least 0.001, M the batch's g_i and M_0 a moving
    average of their mean. The paper's filter of outlying pairs is not part of it.
    """
    return Objective("beta-dpo", temperature=BetaPerBatch(beta, alpha, momentum))


def _rosepo(
    beta: float = 0.1, eps_max: float = 0.4, tau: float = 1.0, oracle: Oracle | None = None
) -> Objective:
    """RosePO, arXiv 2410.12519: DPO with smoothed labels for negatives the user may like.

    mean_i -(1 - eps_i) log sigma(g_i) - eps_i log sigma(-g_i), R = log pi(y|x) - log ref(y|x);
    eps_i = eps_max sigma((s(u, y-_i) - s(u, y+)) / tau) by the recommender's scores s, or what
    `oracle` says.
    """
    return Objective("rosepo", temperature=FixedBeta(beta), link=Smoothed(eps_max, tau, oracle))


def _napo(
    beta: float = 1.0,
    gamma: float = 1.0,
    alpha: float = 0.3,
    rho: float = 0.7,
    momentum: float = 0.9,
    sharing_gradient: SharingGradient = "all",
    mask_collisions: bool = True,
    similarity: Similarity = "inner",
    length_normalised: bool = False,
    dynamic_margin: bool = True,
    confidence_start: float | None = None,
) -> Objective:
    """NAPO, arXiv 2508.09653, sections 3.2 and 3.3.

    -log sigma(-log sum_i exp(-g_i) - gamma_batch) over the own negatives and those of the
    floor((B - 1) rho) most similar users; R = log pi(y|x);
    gamma_batch = [1 + alpha (c - R_0)] gamma, c the mean of the recommender's confidence
    (1 - s(u, y)) / 2 over all users and negatives, R_0 its moving average.
    The paper's ablations (Table 3) are options: rho=0, dynamic_margin=False,
    length_normalised=True.
    """
    return Objective(
        "napo",
        _free(length_normalised),
        _shared(rho, sharing_gradient, mask_collisions, similarity),
        temperature=FixedBeta(beta),
        aggregation="softmax",
        margin=_napo_margin(dynamic_margin, gamma, alpha, momentum, confidence_start),
    )


def _dynamicpo_dmpo(
    beta: float = 1.0, alpha: float = 0.5, gamma: float = 6.0, dynamic_beta: bool = True
) -> Objective:
    """DynamicPO over DMPO, arXiv 2605.00327, sections 3.2 and 3.3.

    -log sigma(mean_{i in B} beta_i (R+ - R-_i)), R = log pi(y|x) - log ref(y|x); B are the
    boundary-critical negatives, beta_i = beta (1 + alpha tanh((dp - dn - gamma) / (|dp| + |dn|))).
    The paper's ablations (Table 6) are options: selection=clusters (without stage 1),
    selection=violations (without stage 2), selection=all (without both), dynamic_beta=False;
    selection=top-k is its Table 7.
    """
    return _dynamicpo("dmpo", "reference", "mean", _dual(beta, alpha, gamma, dynamic_beta))


def _dynamicpo_s_dpo(
    beta: float = 1.0, alpha: float = 0.5, gamma: float = 6.0, dynamic_beta: bool = True
) -> Objective:
    """DynamicPO over S-DPO, arXiv 2605.00327, sections 3.2 and 3.3.

    -log sigma(-log sum_{i in B} exp(-beta_i (R+ - R-_i))), R = log pi(y|x) - log ref(y|x); B and
    beta_i as in dynamicpo-dmpo, whose ablations it has too.
    """
    return _dynamicpo("s-dpo", "reference", "softmax", _dual(beta, alpha, gamma, dynamic_beta))


def _dynamicpo_mppo(
    beta: float = 1.0, alpha: float = 0.5, gamma: float = 6.0, dynamic_beta: bool = True
) -> Objective:
    """DynamicPO over MPPO, arXiv 2605.00327, sections 3.2 and 3.3.

    -log sigma(sum_{i in B} beta_i (p+ - p-_i)), p = exp(log pi(y|x) / |y|); B and beta_i as in
    dynamicpo-dmpo (of summed log-probs, not of p), whose ablations it has too.
    """
    return _dynamicpo("mppo", "likelihood", "merged", _dual(beta, alpha, gamma, dynamic_beta))


def _dynamic_napo(
    beta: float = 1.0,
    gamma: float = 1.0,
    alpha: float = 0.3,
    rho: float = 0.7,
    momentum: float = 0.9,
    boundary_alpha: float = 0.5,
    boundary_gamma: float = 6.0,
    sharing_gradient: SharingGradient = "all",
    mask_collisions: bool = True,
    similarity: Similarity = "inner",
    length_normalised: bool = False,
    dynamic_margin: bool = True,
    dynamic_beta: bool = True,
    confidence_start: float | None = None,
) -> Objective:
    """NAPO's sharing and margin with DynamicPO's selection and beta, of our own making.

    -log sigma(-log sum_{i in B} exp(-beta_i (R+ - R-_i)) - gamma_batch), R = log pi(y|x), B chosen
    from the shared set; gamma_batch as in napo (its confidence is over the whole set), beta_i as in
    dynamicpo-dmpo.
    """
    return Objective(
        "dynamic-napo",
        _free(length_normalised),
        _shared(rho, sharing_gradient, mask_collisions, similarity),
        Boundary(),
        _dual(beta, boundary_alpha, boundary_gamma, dynamic_beta),
        "softmax",
        _napo_margin(dynamic_margin, gamma, alpha, momentum, confidence_start),
    )


def _free(length_normalised: bool) -> Reward:
    return REWARDS["free-normalised" if length_normalised else "free"]


def _shared(
    rho: float, gradient: SharingGradient, mask_collisions: bool, similarity: Similarity
) -> NegativeSet:
    return Shared(rho, gradient, mask_collisions, similarity) if rho else Own()


def _napo_margin(
    dynamic: bool, gamma: float, alpha: float, momentum: float, start: float | None
) -> Margin:
    return ConfidenceMargin(gamma, alpha, momentum, start) if dynamic else FixedMargin(gamma)


def _dual(beta: float, alpha: float, gamma: float, dynamic: bool) -> Temperature:
    return BetaPerNegative(beta, alpha, gamma) if dynamic else FixedBeta(beta)


def _dynamicpo(over: str, reward: str, aggregation: str, temperature: Temperature) -> Objective:
    return Objective(
        f"dynamicpo-{over}", REWARDS[reward], Own(), Boundary(), temperature, aggregation
    )


PRESETS: Mapping[str, Callable[..., Objective | SftObjective]] = MappingProxyType(
    {
        "sft": _sft,
        "dpo": _dpo,
        "simpo": _simpo,
        "s-dpo": _s_dpo,
        "s-dpo+ns": _s_dpo_ns,
        "sims-dpo": _sims_dpo,
        "dmpo": _dmpo,
        "mppo": _mppo,
        "alpha-dpo": _alpha_dpo,
        "beta-dpo": _beta_dpo,
        "rosepo": _rosepo,
        "napo": _napo,
        "dynamicpo-dmpo": _dynamicpo_dmpo,
        "dynamicpo-s-dpo": _dynamicpo_s_dpo,
        "dynamicpo-mppo": _dynamicpo_mppo,
        "dynamic-napo": _dynamic_napo,
    }
)
