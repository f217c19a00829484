"""Negative sets: a user's own samples, widened by those of similar users (NAPO section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from raypo.objectives.batch import PreferenceBatch
from raypo.objectives.collectives import Collective, World

SharingGradient = Literal["all", "local", "own"]
Similarity = Literal["inner", "cosine"]


@dataclass(frozen=True)
class Members:
    """Who is in E_u of this worker's b users, before any reward is exchanged.

    Attributes:
        items: [b, E] item ids, or None where the caller gave none.
        valid: [b, E] False where a negative is masked out.
        columns: detached numbers of each negative [b, E], by name.
        similar: [b, K] global indices of the users shared with; None without sharing.
        world: everyone's batch size; None where nothing was exchanged.
    """

    items: Tensor | None
    valid: Tensor
    columns: Mapping[str, Tensor]
    similar: Tensor | None = None
    world: World | None = None


@dataclass(frozen=True)
class Own:
    """E_u is the n sampled negatives."""

    kind: str = "own"

    def members(
        self, batch: PreferenceBatch, columns: Mapping[str, Tensor], collective: Collective
    ) -> Members:
        """The sets; nothing is exchanged."""
        valid = torch.ones_like(batch.rejected_logps, dtype=torch.bool)
        return Members(batch.rejected_items, valid, columns)

    def rewards(
        self, rewards: Tensor, members: Members, moments: Tensor, collective: Collective
    ) -> tuple[Tensor, Tensor]:
        """Rewards [b, n] as they are, and all workers' moments [W, k]; one gather if k > 0."""
        return rewards, collective.headers(moments) if len(moments) else moments[None]


@dataclass(frozen=True)
class Shared:
    """E_u is the user's own negatives and those of the K most similar users of the global batch.

    K = floor((B - 1) rho); similarity is the inner (or cosine) product of the recommender's
    sequence embeddings; ties go to the lower global index. The shared value is the one computed
    under the other user's prompt: no further forward pass.

    Attributes:
        rho: share of the other users whose negatives are taken.
        sharing_gradient: how far a loss reaches into shared values: `all` workers, this worker's
            `local` users, or the user's `own` negatives only, which always carry gradient.
        mask_collisions: leave out a shared negative that is the user's target or in the history.
        similarity: of embeddings.
    """

    rho: float = 0.7
    sharing_gradient: SharingGradient = "all"
    mask_collisions: bool = True
    similarity: Similarity = "inner"
    kind: str = "shared"

    def members(
        self, batch: PreferenceBatch, columns: Mapping[str, Tensor], collective: Collective
    ) -> Members:
        """The sets of n (1 + K) negatives; one gather of what needs no gradient."""
        assert batch.user_embeddings is not None and batch.rejected_items is not None
        users, n = batch.rejected_items.shape
        facts, world = collective.facts(
            [batch.user_embeddings, batch.rejected_items, *columns.values()]
        )
        embeddings, items, *gathered = facts
        similar = self._most_similar(embeddings, world, users)

        def widened(own: Tensor, everyone: Tensor) -> Tensor:
            return torch.cat([own, everyone[similar].flatten(1)], dim=1)

        all_items = widened(batch.rejected_items, items)
        valid = torch.ones_like(all_items, dtype=torch.bool)
        if self.mask_collisions:
            valid[:, n:] = ~_collides(all_items[:, n:], batch)
        shared = {
            name: widened(column, everyone)
            for (name, column), everyone in zip(columns.items(), gathered, strict=True)
        }
        return Members(all_items, valid, shared, similar, world)

    def rewards(
        self, rewards: Tensor, members: Members, moments: Tensor, collective: Collective
    ) -> tuple[Tensor, Tensor]:
        """Rewards [b, n (1 + K)] and all workers' moments [W, k], in one gather."""
        assert members.world is not None and members.similar is not None
        sent = rewards if self.sharing_gradient == "all" else rewards.detach()
        table, merged = collective.values(sent, moments, members.world)
        if self.sharing_gradient == "local":
            before, after = members.world.offset, members.world.offset + len(rewards)
            table = torch.cat([table[:before], rewards, table[after:]])
        return torch.cat([rewards, table[members.similar].flatten(1)], dim=1), merged

    @torch.no_grad()
    def _most_similar(self, embeddings: Tensor, world: World, users: int) -> Tensor:
        """Global indices [b, K] of the users that this worker's users take negatives from."""
        # The allowance is for rho such as 0.7, whose product may fall just short of a whole number.
        taken = math.floor((world.total - 1) * self.rho + 1e-9)
        if self.similarity == "cosine":
            embeddings = torch.nn.functional.normalize(embeddings, dim=1)
        own = torch.arange(world.offset, world.offset + users, device=embeddings.device)
        similarity = embeddings[own] @ embeddings.T
        similarity.scatter_(1, own[:, None], -math.inf)
        return similarity.sort(dim=1, descending=True, stable=True).indices[:, : max(0, taken)]


def _collides(items: Tensor, batch: PreferenceBatch) -> Tensor:
    """Where an item [b, k] is the user's target or in the user's history."""
    assert batch.chosen_items is not None and batch.history_items is not None
    collides = items == batch.chosen_items[:, None]
    # One history position at a time: [b, k, h] at once would be the step's largest tensor.
    for past in batch.history_items.unbind(dim=1):
        collides |= items == past[:, None]
    return collides


NegativeSet = Own | Shared
