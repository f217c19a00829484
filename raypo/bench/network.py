"""What sharing costs on a network, on paper: bytes and messages of a step, and their time.

The collectives of a step and their bytes are recorded from the objective itself
(`simulated_ranks`). Their time is predicted for rings and trees by the usual model: a message of m
bytes takes latency + m / bandwidth, and a rank sends one at a time.

Shapes: b users of a rank, n sampled negatives each, W ranks, B = W b users.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from raypo.bench.simulated_ranks import Message, SimulatedRanks, synthetic_batch
from raypo.objectives import build_objective, preset_options

Algorithm = Literal["ring", "tree"]
# Bytes do not depend on how many users are shared with.
_SIMILAR_USERS = 8


@dataclass(frozen=True)
class Network:
    """A network between ranks.

    Attributes:
        bandwidth: bytes per second that a rank can send.
        latency: seconds of a message without bytes.
    """

    bandwidth: float
    latency: float

    def seconds(self, message: Message, num_ranks: int, algorithm: Algorithm) -> float:
        """Seconds of a collective."""
        messages, num_bytes = traffic(message, num_ranks, algorithm)
        return messages * self.latency + num_bytes / self.bandwidth


def traffic(message: Message, num_ranks: int, algorithm: Algorithm) -> tuple[int, float]:
    """Messages that follow on one another in a collective, and the bytes that a rank sends.

    - gather, ring: W - 1 messages, each with the bytes of one rank. Tree: log2 W messages of
      doubling size. A rank sends (W - 1) m bytes in either.
    - reduction, ring: W - 1 messages to add up the parts and W - 1 to hand them round, each with
      1/W of the bytes. Tree: log2 W up and log2 W down, with all bytes each way in a pipeline.
    """
    depth = math.ceil(math.log2(num_ranks))
    others = num_ranks - 1
    if message.operation == "gather":
        return others if algorithm == "ring" else depth, float(others * message.num_bytes)
    if algorithm == "ring":
        return 2 * others, 2 * message.num_bytes * others / num_ranks
    return 2 * depth, 2.0 * message.num_bytes if others else 0.0


def step_messages(
    objective: str, num_ranks: int, users: int, num_negatives: int, embedding_size: int
) -> list[Message]:
    """Collectives of one step of an objective, after the first: backward included.

    Args:
        objective: preset.
        num_ranks: W.
        users: b, of each rank.
        num_negatives: n.
        embedding_size: of the recommender's sequence embeddings.
    """
    options: dict[str, Any] = {}
    if "rho" in preset_options(objective):
        options["rho"] = min(1.0, _SIMILAR_USERS / max(1, num_ranks * users - 1))
    ranks = SimulatedRanks(num_ranks=num_ranks)
    built = replace(build_objective(objective, **options), _collective=ranks)
    batch = synthetic_batch(users, num_negatives, torch.device("cpu"), embedding_size)
    for _ in range(2):  # the first step learns how wide the batches are
        ranks.messages.clear()
        built(batch).loss.backward()  # type: ignore[no-untyped-call]
    return ranks.messages


@dataclass(frozen=True)
class NetworkSettings:
    """What to predict.

    Attributes:
        objective: preset that shares.
        baseline: the same without sharing.
        num_ranks: numbers of ranks.
        users: b, of each rank.
        num_negatives: n.
        embedding_size: of the recommender's sequence embeddings.
        network: between the ranks.
        compute_seconds: of a step without collectives, see `roofline`.
    """

    objective: str
    baseline: str
    num_ranks: Sequence[int]
    users: int
    num_negatives: int
    embedding_size: int
    network: Network
    compute_seconds: float


def predict_sharing(settings: NetworkSettings) -> Iterator[dict[str, object]]:
    """Plain values for a table: what sharing adds to a step, by number of ranks."""
    shape = (settings.users, settings.num_negatives, settings.embedding_size)
    for num_ranks in settings.num_ranks:
        messages = step_messages(settings.objective, num_ranks, *shape)
        baseline = step_messages(settings.baseline, num_ranks, *shape)
        milliseconds, sent, in_turn = {}, {}, {}
        for algorithm in ("ring", "tree"):
            added, added_bytes, added_messages = 0.0, 0.0, 0
            for sign, each in ((1, messages), (-1, baseline)):
                for message in each:
                    count, num_bytes = traffic(message, num_ranks, algorithm)
                    added += sign * settings.network.seconds(message, num_ranks, algorithm)
                    added_bytes += sign * num_bytes
                    added_messages += sign * count
            milliseconds[algorithm] = 1000 * added
            sent[algorithm], in_turn[algorithm] = added_bytes, added_messages
        compute = 1000 * settings.compute_seconds
        yield {
            "ranks": num_ranks,
            "users": num_ranks * settings.users,
            "collectives": len(messages),
            "without sharing": len(baseline),
            "KiB a rank puts in": round(sum(each.num_bytes for each in messages) / 1024, 1),
            "KiB sent, ring": round(sent["ring"] / 1024, 1),
            "messages, ring": in_turn["ring"],
            "messages, tree": in_turn["tree"],
            "ms, ring": float(f"{milliseconds['ring']:.3g}"),
            "ms, tree": float(f"{milliseconds['tree']:.3g}"),
            "compute ms": round(compute, 1),
            "% of compute, ring": float(f"{100 * milliseconds['ring'] / compute:.2g}"),
            "% of compute, tree": float(f"{100 * milliseconds['tree'] / compute:.2g}"),
        }
