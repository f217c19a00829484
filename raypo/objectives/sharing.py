"""Negative sets: a user's own samples, widened by those of similar users (NAPO section 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from raypo.objectives.batch import PreferenceBatch
from raypo.objectives.collectives import World, gather

SharingGradient = Literal["all", "local", "own"]
Similarity = Literal["inner", "cosine"]


@dataclass(frozen=True)
class NegativeSet:
    """E_u of this worker's b users.

    Attributes:
        rewards: [b, E] their rewards R, before the temperature.
        items: [b, E] their item ids, or None where nobody needs them.
        valid: [b, E] False where a negative is masked out.
    """

    rewards: Tensor
    items: Tensor | None
    valid: Tensor


@dataclass(frozen=True)
class Own:
    """E_u is the n sampled negatives."""

    def __call__(self, rewards: Tensor, batch: PreferenceBatch, world: World) -> NegativeSet:
        """The set of rewards [b, n]."""
        return NegativeSet(rewards, batch.rejected_items, torch.ones_like(rewards).bool())


@dataclass(frozen=True)
class Shared:
    """E_u is the user's own negatives and those of the K most similar users of the global batch.

    K = floor((B - 1) rho); similarity is the inner (or cosine) product of the recommender's
    sequence embeddings; ties go to the lower global index. The shared value is the one computed
    under the other user's prompt: no further forward pass.

    Attributes:
        rho: share of the other users whose negatives are taken.
        gradient: how far a loss reaches into shared values: `all` workers, this worker's `local`
            users, or the user's `own` negatives only, which always carry gradient.
        mask_collisions: leave out a shared negative that is the user's target or in the history.
        similarity: of embeddings.
    """

    rho: float
    gradient: SharingGradient = "all"
    mask_collisions: bool = True
    similarity: Similarity = "inner"

    def __call__(self, rewards: Tensor, batch: PreferenceBatch, world: World) -> NegativeSet:
        """The set of rewards [b, n (1 + K)]."""
        assert batch.user_embeddings is not None and batch.rejected_items is not None
        taken = math.floor((world.total - 1) * self.rho + 1e-9)
        users, n = rewards.shape
        # Item ids travel as float64, which holds them exactly, beside the embeddings.
        facts = torch.cat([batch.user_embeddings.double(), batch.rejected_items.double()], dim=1)
        facts = gather(facts.detach(), world)
        embeddings, items = facts[:, :-n], facts[:, -n:].round().long()
        similar = self._most_similar(embeddings, world, users, taken)
        shared = self._table(rewards, world)[similar].reshape(users, taken * n)
        shared_items = items[similar].reshape(users, taken * n)
        valid = torch.ones_like(shared, dtype=torch.bool)
        if self.mask_collisions:
            valid = ~_collides(shared_items, batch)
        return NegativeSet(
            torch.cat([rewards, shared], dim=1),
            torch.cat([batch.rejected_items, shared_items], dim=1),
            torch.cat([torch.ones_like(rewards, dtype=torch.bool), valid], dim=1),
        )

    def _most_similar(self, embeddings: Tensor, world: World, users: int, taken: int) -> Tensor:
        """Global indices [b, K] of the users that this worker's users take negatives from."""
        if self.similarity == "cosine":
            embeddings = torch.nn.functional.normalize(embeddings, dim=1)
        own = torch.arange(world.offset, world.offset + users, device=embeddings.device)
        similarity = embeddings[own] @ embeddings.T
        similarity.scatter_(1, own[:, None], -math.inf)
        return similarity.sort(dim=1, descending=True, stable=True).indices[:, :taken]

    def _table(self, rewards: Tensor, world: World) -> Tensor:
        """Everyone's rewards [B, n], with as much gradient as `gradient` allows."""
        if self.gradient == "all":
            return gather(rewards, world)
        table = gather(rewards.detach(), world)
        if self.gradient == "own":
            return table
        before, after = world.offset, world.offset + len(rewards)
        return torch.cat([table[:before], rewards, table[after:]])


def _collides(items: Tensor, batch: PreferenceBatch) -> Tensor:
    """Where an item [b, k] is the user's target or in the user's history."""
    assert batch.chosen_items is not None and batch.history_items is not None
    own = torch.cat([batch.chosen_items[:, None], batch.history_items], dim=1)
    return (items[:, :, None] == own[:, None, :]).any(dim=2)
