"""The named objectives; `raypo objectives NAME` shows one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from raypo.objectives.links import Smoothed
from raypo.objectives.margins import ConfidenceMargin, FixedMargin, InstanceMargin, MeanMargin
from raypo.objectives.preset import Preset, SftPreset
from raypo.objectives.rewards import REWARDS
from raypo.objectives.selection import Boundary
from raypo.objectives.sharing import Shared
from raypo.objectives.temperature import BetaPerBatch, BetaPerNegative, FixedBeta

_DYNAMICPO_SOURCE = "arXiv 2605.00327, sections 3.2 and 3.3"
_CONFIDENCE_START = {("margin", "start"): "confidence_start"}

PRESETS: Mapping[str, Preset | SftPreset] = MappingProxyType(
    {
        "sft": SftPreset(
            "Supervised fine-tuning: the token-mean negative log-likelihood of the chosen response"
        ),
        "dpo": Preset(
            "DPO, arXiv 2305.18290, eq. 7",
            "mean_i -log sigma(g_i), R = log pi(y|x) - log ref(y|x). Made for one negative; pairs "
            "of several are averaged.",
            temperature=FixedBeta(0.1),
        ),
        "simpo": Preset(
            "SimPO, arXiv 2405.14734, eq. 6",
            "mean_i -log sigma(g_i - gamma), R = log pi(y|x) / |y|. Made for one negative; pairs "
            "of several are averaged.",
            REWARDS["free-normalised"],
            temperature=FixedBeta(2.0),
            margin=FixedMargin(1.0),
        ),
        "s-dpo": Preset(
            "S-DPO, arXiv 2406.09215: softmax over the negatives",
            "-log sigma(-log sum_i exp(-g_i)), R = log pi(y|x) - log ref(y|x).",
            aggregation="softmax",
        ),
        "s-dpo+ns": Preset(
            "S-DPO with NAPO's in-batch negative sharing, arXiv 2508.09653, section 3.2",
            "-log sigma(-log sum_i exp(-g_i)) over the own negatives and those of the "
            "floor((B - 1) rho) most similar users; R = log pi(y|x) - log ref(y|x).",
            negatives=Shared(),
            aggregation="softmax",
        ),
        "sims-dpo": Preset(
            "S-DPO without a reference: NAPO without sharing and margin, arXiv 2508.09653, Table 3",
            "-log sigma(-log sum_i exp(-g_i) - gamma), R = log pi(y|x), gamma 0 unless given.",
            REWARDS["free"],
            aggregation="softmax",
            margin=FixedMargin(0.0),
            switches=("length_normalised",),
        ),
        "dmpo": Preset(
            "DMPO, arXiv 2405.16127: the chosen against the mean of the negatives",
            "-log sigma(mean_i g_i), R = log pi(y|x) - log ref(y|x).",
            aggregation="mean",
        ),
        "mppo": Preset(
            "MPPO's Pair-MNM, arXiv 2412.15244: likelihoods, all pairs merged",
            "-log sigma(sum_i g_i), R = p(y) = exp(log pi(y|x) / |y|). MPPO itself has no beta.",
            REWARDS["likelihood"],
            aggregation="merged",
        ),
        "alpha-dpo": Preset(
            "alpha-DPO, arXiv 2410.10148: SimPO with a margin of each pair's own",
            "mean_i -log sigma(g_i - gamma - alpha M*_i), R = log pi(y|x) / |y|; M*_i is how far "
            "the policy has moved this pair from the reference (length-normalised, times beta), "
            "standardised by moving averages of its mean and standard deviation.",
            REWARDS["free-normalised"],
            temperature=FixedBeta(2.0),
            margin=InstanceMargin(),
        ),
        "beta-dpo": Preset(
            "beta-DPO, arXiv 2407.08639: DPO with a beta for each batch",
            "mean_i -log sigma(beta_batch (R+ - R-_i)), R = log pi(y|x) - log ref(y|x), "
            "beta_batch = [1 + alpha (mean M - M_0)] beta, at least 0.001, M the batch's g_i and "
            "M_0 a moving average of their mean. The paper's filter of outlying pairs is not part "
            "of it.",
            temperature=BetaPerBatch(),
        ),
        "rosepo": Preset(
            "RosePO, arXiv 2410.12519: DPO with smoothed labels for negatives the user may like",
            "mean_i -(1 - eps_i) log sigma(g_i) - eps_i log sigma(-g_i), R = log pi(y|x) - "
            "log ref(y|x); eps_i = eps_max sigma((s(u, y-_i) - s(u, y+)) / tau) by the "
            "recommender's scores s, or the result of `oracle`.",
            temperature=FixedBeta(0.1),
            link=Smoothed(),
        ),
        "napo": Preset(
            "NAPO, arXiv 2508.09653, sections 3.2 and 3.3",
            "-log sigma(-log sum_i exp(-g_i) - gamma_batch) over the own negatives and those of "
            "the floor((B - 1) rho) most similar users; R = log pi(y|x); gamma_batch = "
            "[1 + alpha (c - R_0)] gamma, c the mean of the recommender's confidence "
            "(1 - s(u, y)) / 2 over all users and negatives, R_0 its moving average. The paper's "
            "ablations (Table 3) are options: rho=0, dynamic_margin=False, length_normalised=True.",
            REWARDS["free"],
            Shared(),
            aggregation="softmax",
            margin=ConfidenceMargin(),
            renamed=_CONFIDENCE_START,
            switches=("length_normalised", "dynamic_margin"),
        ),
        "napo-1": Preset(
            "NAPO-1, arXiv 2508.09653, appendix B: NAPO with alpha-DPO's margin",
            "-log sigma(-log sum_i exp(-(g_i - gamma_i))), R = log pi(y|x), over the negatives of "
            "napo; gamma_i = gamma + alpha M*_i as in alpha-dpo. The paper compares it at one "
            "negative.",
            REWARDS["free"],
            Shared(),
            aggregation="softmax",
            margin=InstanceMargin(),
            switches=("length_normalised",),
        ),
        "napo-2": Preset(
            "NAPO-2, arXiv 2508.09653, appendix B: the mean of napo's and alpha-dpo's margins",
            "-log sigma(-log sum_i exp(-(g_i - gamma_i))), R = log pi(y|x), over the negatives of "
            "napo; gamma_i is the mean of napo's gamma_batch and of gamma + instance_alpha M*_i. "
            "The paper compares it at one negative.",
            REWARDS["free"],
            Shared(),
            aggregation="softmax",
            margin=MeanMargin(),
            renamed=_CONFIDENCE_START,
            switches=("length_normalised",),
        ),
        "dynamicpo-dmpo": Preset(
            f"DynamicPO over DMPO, {_DYNAMICPO_SOURCE}",
            "-log sigma(mean_{i in B} beta_i (R+ - R-_i)), R = log pi(y|x) - log ref(y|x); B are "
            "the boundary-critical negatives, beta_i = beta (1 + alpha tanh((dp - dn - gamma) / "
            "(|dp| + |dn|))). The paper's ablations (Table 6) are options: selection=clusters "
            "(without stage 1), selection=violations (without stage 2), selection=all (without "
            "both), dynamic_beta=False; selection=top-k is its Table 7.",
            selection=Boundary(),
            temperature=BetaPerNegative(),
            aggregation="mean",
            switches=("dynamic_beta",),
        ),
        "dynamicpo-s-dpo": Preset(
            f"DynamicPO over S-DPO, {_DYNAMICPO_SOURCE}",
            "-log sigma(-log sum_{i in B} exp(-beta_i (R+ - R-_i))), R = log pi(y|x) - "
            "log ref(y|x); B, beta_i and the ablations as in dynamicpo-dmpo.",
            selection=Boundary(),
            temperature=BetaPerNegative(),
            aggregation="softmax",
            switches=("dynamic_beta",),
        ),
        "dynamicpo-mppo": Preset(
            f"DynamicPO over MPPO, {_DYNAMICPO_SOURCE}",
            "-log sigma(sum_{i in B} beta_i (p+ - p-_i)), p = exp(log pi(y|x) / |y|); B, beta_i "
            "(from summed log-probs, not from p) and the ablations as in dynamicpo-dmpo.",
            REWARDS["likelihood"],
            selection=Boundary(),
            temperature=BetaPerNegative(),
            aggregation="merged",
            switches=("dynamic_beta",),
        ),
        "dynamic-napo": Preset(
            "NAPO's sharing and margin with DynamicPO's selection and beta, of our own making",
            "-log sigma(-log sum_{i in B} exp(-beta_i (R+ - R-_i)) - gamma_batch), "
            "R = log pi(y|x), B selected from the shared set; gamma_batch as in napo (its "
            "confidence is over the whole set), beta_i as in dynamicpo-dmpo.",
            REWARDS["free"],
            Shared(),
            Boundary(),
            BetaPerNegative(),
            "softmax",
            ConfidenceMargin(),
            renamed=_CONFIDENCE_START
            | {
                ("temperature", "alpha"): "boundary_alpha",
                ("temperature", "gamma"): "boundary_gamma",
            },
            switches=("length_normalised", "dynamic_margin", "dynamic_beta"),
        ),
    }
)
