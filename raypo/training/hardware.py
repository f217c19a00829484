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
    for setting, without_gpu, with_parts in _needs(policy):
        if cluster.gpus_per_worker == 0:
            raise InputError(f"policy.{setting}: {without_gpu}; set cluster.gpus_per_worker")
        if with_parts is not None and cluster.partitions_weights:
            raise InputError(f"policy.{setting}: {with_parts}; use cluster.zero_stage 0 or 2")
    if policy.offload_activations and policy.gradient_checkpointing is False:
        raise InputError(
            "policy.offload_activations is of recomputed layers; set "
            "policy.gradient_checkpointing to true or auto"
        )


def _needs(policy: PolicySettings) -> list[tuple[str, str, str | None]]:
    """Settings that are on: name, why it needs a GPU, and why no ZeRO-3; None where it does not."""
    needs: list[tuple[str, str, str | None]] = []
    if policy.quantisation is not None:
        parts = "4-bit weights cannot be partitioned over workers, and fit one GPU"
        needs.append(("quantisation", "4-bit weights need a GPU", parts))
    if policy.head_kernel == "triton":
        parts = "triton reads the LM head's weights, which cluster.zero_stage=3 partitions"
        needs.append(("head_kernel", "triton needs a GPU", parts))
    if policy.compile_layers:
        parts = "weights that are gathered around modules cannot be compiled with them"
        needs.append(("compile_layers", "compiling pays on GPUs alone", parts))
    if policy.offload_activations:
        needs.append(("offload_activations", "activations are in the host's memory anyway", None))
    return needs
