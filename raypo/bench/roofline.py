"""A LoRA step on paper: compute, memory traffic and network of a GPU, and which of them binds.

Every number is a lower bound by a peak rate; nothing is measured. A step forwards and backwards one
micro-batch on every rank, then averages the adapter's gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from raypo.bench.gpu.flops import PEAKS
from raypo.bench.network import Network, step_messages
from raypo.bench.simulated_ranks import Message

_BF16, _FLOAT32 = 2, 4
# Bytes that a layer keeps of a token, per unit of width (arXiv 2205.05198, without attention's
# matrix). Each is written in forward and read in backward.
_ACTIVATION_BYTES = 34


@dataclass(frozen=True)
class Decoder:
    """Sizes of a decoder with a LoRA adapter on all linear layers of its blocks.

    Attributes:
        hidden, intermediate, layers, key_value, vocabulary: widths and depth; `key_value` is the
            width of keys, and of values.
        rank: of the adapter.
    """

    hidden: int = 4096
    intermediate: int = 11008
    layers: int = 32
    key_value: int = 4096
    vocabulary: int = 32000
    rank: int = 16

    def _linears(self) -> list[tuple[int, int]]:
        """Inputs and outputs of a block's linear layers."""
        h, i, kv = self.hidden, self.intermediate, self.key_value
        return [(h, h), (h, kv), (h, kv), (h, h), (h, i), (h, i), (i, h)]

    @property
    def parameters(self) -> int:
        """Frozen weights of linear layers and embeddings."""
        blocks = self.layers * sum(inputs * outputs for inputs, outputs in self._linears())
        return blocks + 2 * self.vocabulary * self.hidden

    @property
    def matrix_parameters(self) -> int:
        """Weights that a token is multiplied with: all but the input embeddings."""
        return self.parameters - self.vocabulary * self.hidden

    @property
    def adapter_parameters(self) -> int:
        """Trained weights."""
        return self.layers * self.rank * sum(sum(linear) for linear in self._linears())

    def flops(self, recomputed: bool = False) -> float:
        """FLOPs of a token, forward and backward; attention's products are not counted.

        Frozen weights take 2 P forward and 2 P for the activations' gradients; those of the adapter
        take 2 more for their own gradients. Recomputing activations is one more forward pass.
        """
        frozen, trained = self.matrix_parameters, self.adapter_parameters
        forward = 2.0 * (frozen + trained)
        return forward * (2 + recomputed) + 2.0 * trained

    def memory_bytes(self, tokens: float) -> float:
        """Bytes of weights read, forward and backward, and of activations written and read."""
        activations = 2 * _ACTIVATION_BYTES * self.hidden * self.layers * tokens
        return 2 * _BF16 * self.matrix_parameters + activations


@dataclass(frozen=True)
class Gpu:
    """Peak rates of a GPU, by its maker's data sheet.

    Attributes:
        flops: dense bf16 FLOPs a second.
        memory_bandwidth: bytes a second.
        utilisation: fraction of `flops` that training is assumed to reach.
    """

    flops: float
    memory_bandwidth: float
    utilisation: float = 0.4


# The SXM modules, by NVIDIA's data sheets.
GPUS = {"H100": Gpu(PEAKS["H100"], 3.35e12), "H200": Gpu(PEAKS["H200"], 4.8e12)}


@dataclass(frozen=True)
class RooflineSettings:
    """Sizes of a step.

    Attributes:
        decoder: policy.
        gpu: of every rank.
        network: between the ranks.
        num_ranks: W.
        users: of each rank, in one micro-batch.
        tokens_per_user: distinct tokens of a prompt with its responses.
        num_negatives: per user.
        embedding_size: of the recommender's sequence embeddings.
    """

    decoder: Decoder
    gpu: Gpu
    network: Network
    num_ranks: int = 8
    users: int = 16
    tokens_per_user: int = 240
    num_negatives: int = 3
    embedding_size: int = 64

    @property
    def tokens(self) -> int:
        """Tokens of a rank."""
        return self.users * self.tokens_per_user

    @property
    def compute_seconds(self) -> float:
        """Of a rank's micro-batch, at the assumed utilisation."""
        return self.tokens * self.decoder.flops() / (self.gpu.flops * self.gpu.utilisation)


def step_seconds(settings: RooflineSettings) -> dict[str, float]:
    """Seconds of each part of a step, each as if it were alone.

    ZeRO-3 gathers the frozen weights for forward and again for backward. Gradients are averaged in
    float32.
    """
    decoder, network, num_ranks = settings.decoder, settings.network, settings.num_ranks
    gradients = Message("reduction", _FLOAT32 * decoder.adapter_parameters)
    partition = Message("gather", _BF16 * decoder.parameters // num_ranks)
    sharing = step_messages(
        "napo", num_ranks, settings.users, settings.num_negatives, settings.embedding_size
    )
    return {
        "compute": settings.compute_seconds,
        "memory": decoder.memory_bytes(settings.tokens) / settings.gpu.memory_bandwidth,
        "gradients": network.seconds(gradients, num_ranks, "ring"),
        "sharing": sum(network.seconds(each, num_ranks, "ring") for each in sharing),
        # Layer by layer in truth, so that the latency is paid once a layer.
        "ZeRO-3 gathers": 2
        * (
            network.seconds(partition, num_ranks, "ring")
            + (decoder.layers - 1) * (num_ranks - 1) * network.latency
        ),
    }


def balance(settings: RooflineSettings) -> dict[str, float]:
    """Tokens of a rank's micro-batch from which compute takes longer than each other part.

    At the peak rate, not at the assumed utilisation: below it the network matters less. Infinite
    where the other part grows faster with tokens than compute does.
    """
    peak = replace(settings.gpu, utilisation=1.0)
    parts = step_seconds(replace(settings, gpu=peak))
    per_token = settings.decoder.flops() / peak.flops
    weights = settings.decoder.memory_bytes(0) / peak.memory_bandwidth
    activations = (parts["memory"] - weights) / settings.tokens
    return {
        "memory": weights / (per_token - activations) if per_token > activations else float("inf"),
        **{name: parts[name] / per_token for name in ("gradients", "sharing", "ZeRO-3 gathers")},
    }


def roofline_rows(
    settings: RooflineSettings, num_ranks: Sequence[int], users: Sequence[int]
) -> Iterator[dict[str, object]]:
    """Plain values for a table: milliseconds of each part, and the one that binds.

    Args:
        settings: all but ranks and users.
        num_ranks: numbers of ranks.
        users: users of each rank.
    """
    for ranks in num_ranks:
        for of_rank in users:
            sized = replace(settings, num_ranks=ranks, users=of_rank)
            parts = step_seconds(sized)
            without_zero = {name: parts[name] for name in parts if name != "ZeRO-3 gathers"}
            yield {
                "ranks": ranks,
                "users of a rank": of_rank,
                "tokens of a rank": sized.tokens,
                **{f"{name} ms": float(f"{1000 * part:.3g}") for name, part in parts.items()},
                "binds": max(without_zero, key=without_zero.__getitem__),
                "binds, ZeRO-3": max(parts, key=parts.__getitem__).removesuffix(" gathers"),
            }


def balance_rows(
    settings: RooflineSettings, num_ranks: Sequence[int]
) -> Iterator[dict[str, object]]:
    """Plain values for a table: `balance`, by number of ranks."""
    for ranks in num_ranks:
        tokens = balance(replace(settings, num_ranks=ranks))
        yield {
            "ranks": ranks,
            **{f"tokens of a rank, above {name}": round(each) for name, each in tokens.items()},
        }
