"""Settings that this cluster's hardware cannot follow."""

from __future__ import annotations

from raypo.config.policy import PolicySettings
from raypo.config.training import ClusterConfig
from raypo.errors import InputError


def check_hardware(policy: PolicySettings, cluster: ClusterConfig) -> None:
    """Check settings of the policy that need GPUs, or whole weights on each of them.

    Raises:
        InputError: one of them does not fit the cluster; the message names it.
    """
    _check_quantisation(policy, cluster)
    _check_head_kernel(policy, cluster)
    if policy.offload_activations:
        if cluster.gpus_per_worker == 0:
            raise InputError(
                "policy.offload_activations: without a GPU activations are in the host's memory "
                "anyway; set cluster.gpus_per_worker, or leave it out"
            )
        if policy.gradient_checkpointing is False:
            raise InputError(
                "policy.offload_activations is of recomputed layers; set "
                "policy.gradient_checkpointing to true or auto"
            )


def _check_quantisation(policy: PolicySettings, cluster: ClusterConfig) -> None:
    if policy.quantisation is None:
        return
    if cluster.gpus_per_worker == 0:
        raise InputError(
            "policy.quantisation: 4-bit weights need a GPU; set cluster.gpus_per_worker"
        )
    if cluster.partitions_weights:
        raise InputError(
            "policy.quantisation: 4-bit weights cannot be partitioned over workers; use "
            "cluster.zero_stage 0 or 2, where a 4-bit model fits one GPU"
        )


def _check_head_kernel(policy: PolicySettings, cluster: ClusterConfig) -> None:
    if policy.head_kernel == "torch":
        return
    if cluster.gpus_per_worker == 0:
        raise InputError("policy.head_kernel: triton needs a GPU; set cluster.gpus_per_worker")
    if cluster.partitions_weights:
        raise InputError(
            "policy.head_kernel: triton reads the LM head's weights, which cluster.zero_stage=3 "
            "partitions; use torch"
        )
