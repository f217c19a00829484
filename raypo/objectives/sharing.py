"""Negative sets: a user's own samples, or also those of similar users (NAPO section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from raypo.objectives.batch import PreferenceBatch
from raypo.objectives.collectives import Collective, GlobalBatch
from raypo.objectives.options import fraction, one_of, switch, validate_options
from raypo.objectives.sharing_memory import device_memory, require_memory
from raypo.objectives.similarity import most_similar

SharingGradient = Literal["all", "local", "own"]
Similarity = Literal["inner", "cosine"]


@dataclass(frozen=True)
class NegativeSet:
    """E_u of this rank's b users, before any reward is exchanged.

    Attributes:
        items: [b, E] item ids, or None where the caller gave none.
        valid: [b, E] False where a negative is masked out.
        columns: detached values of each negative [b, E], by name.
        similar: [b, K] global indices of the users shared with; None without sharing.
        batch: batch sizes of all ranks; None where nothing was exchanged.
    """

    items: Tensor | None
    valid: Tensor
    columns: Mapping[str, Tensor]
    similar: Tensor | None = None
    batch: GlobalBatch | None = None


@dataclass(frozen=True)
class Own:
    """E_u is the n sampled negatives."""

    kind: str = "own"

    def negative_set(
        self, batch: PreferenceBatch, columns: Mapping[str, Tensor], collective: Collective
    ) -> NegativeSet:
        """Negative sets of n; nothing is exchanged."""
        valid = torch.ones_like(batch.rejected_logps, dtype=torch.bool)
        return NegativeSet(batch.rejected_items, valid, columns)

    def rewards(
        self, rewards: Tensor, negatives: NegativeSet, moments: Tensor, collective: Collective
    ) -> tuple[Tensor, Tensor]:
        """The same rewards [b, n] and all ranks' moments [W, k]; one gather if k > 0."""
        return rewards, collective.gather_stats(moments) if len(moments) else moments[None]


@dataclass(frozen=True)
class Shared:
    """E_u is the user's own negatives and those of the K most similar users of the global batch.

    K = floor((B - 1) rho). Similarity is the inner (or cosine) product of the recommender's
    sequence embeddings; ties go to the lower global index. A shared negative has the value that was
    computed under the other user's prompt, so that no further forward pass is needed.

    `sharing_gradient` says through which values a user's loss has a gradient: those of `all` ranks,
    those of this rank's users (`local`), or the user's `own` negatives, which always have one.
    """

    rho: Annotated[float, fraction("share of the other users whose negatives are taken")] = 0.7
    sharing_gradient: Annotated[
        SharingGradient,
        one_of(
            ("all", "local", "own"),
            "all, local or own: which shared log-probs a user's loss has a gradient for",
        ),
    ] = "all"
    mask_collisions: Annotated[
        bool, switch("leave out shared negatives that the user is known to have chosen")
    ] = True
    similarity: Annotated[
        Similarity, one_of(("inner", "cosine"), "inner or cosine, of users' embeddings")
    ] = "inner"
    kind: str = "shared"

    def __post_init__(self) -> None:
        """Validate the options."""
        validate_options(self)

    def num_similar(self, num_users: int) -> int:
        """K: users that each of the `num_users` of a global batch takes negatives from."""
        # The product with a rho such as 0.7 may be just below the whole number that it stands for.
        return max(0, math.floor((num_users - 1) * self.rho + 1e-9))

    def negative_set(
        self, batch: PreferenceBatch, columns: Mapping[str, Tensor], collective: Collective
    ) -> NegativeSet:
        """Negative sets of n (1 + K); one gather of what needs no gradient.

        Raises:
            ValueError: the sets cannot fit into the device's memory.
        """
        assert batch.user_embeddings is not None and batch.rejected_items is not None
        n = batch.rejected_items.shape[1]
        gathered, global_batch = collective.gather(
            [batch.user_embeddings, batch.rejected_items, *columns.values()]
        )
        embeddings, items, *gathered_columns = gathered
        similar = self._most_similar(embeddings, global_batch, n)

        def with_shared(own: Tensor, of_all: Tensor) -> Tensor:
            return torch.cat([own, of_all[similar].flatten(1)], dim=1)

        all_items = with_shared(batch.rejected_items, items)
        valid = torch.ones_like(all_items, dtype=torch.bool)
        if self.mask_collisions:
            valid[:, n:] = ~_collides(all_items[:, n:], batch)
        shared = {
            name: with_shared(column, of_all)
            for (name, column), of_all in zip(columns.items(), gathered_columns, strict=True)
        }
        return NegativeSet(all_items, valid, shared, similar, global_batch)

    def rewards(
        self, rewards: Tensor, negatives: NegativeSet, moments: Tensor, collective: Collective
    ) -> tuple[Tensor, Tensor]:
        """Rewards [b, n (1 + K)] and all ranks' moments [W, k], in one gather."""
        assert negatives.batch is not None and negatives.similar is not None
        sent = rewards if self.sharing_gradient == "all" else rewards.detach()
        table, all_moments = collective.gather_with_grad(sent, moments, negatives.batch)
        if self.sharing_gradient == "local":
            start, end = negatives.batch.offset, negatives.batch.offset + len(rewards)
            table = torch.cat([table[:start], rewards, table[end:]])
        return torch.cat([rewards, table[negatives.similar].flatten(1)], dim=1), all_moments

    def _most_similar(self, embeddings: Tensor, batch: GlobalBatch, n: int) -> Tensor:
        """Global indices [b, K] of the users that this rank's users take negatives from."""
        k = self.num_similar(batch.num_users)
        memory = device_memory(embeddings.device)
        require_memory(max(batch.sizes), batch.num_users, n, self.rho, k, memory)
        if self.similarity == "cosine":
            embeddings = torch.nn.functional.normalize(embeddings, dim=1)
        return most_similar(embeddings, batch.offset, batch.sizes[batch.rank], k)


def _collides(items: Tensor, batch: PreferenceBatch) -> Tensor:
    """Where an item [b, k] is the user's target, in the history, or seen in training."""
    assert batch.chosen_items is not None and batch.history_items is not None
    known = [batch.chosen_items[:, None], batch.history_items]
    if batch.seen_items is not None:
        known.append(batch.seen_items)
    # A search in sorted ids: comparing all pairs [b, k, h + s] would be the step's largest tensor.
    ids = torch.cat(known, dim=1).sort(dim=1).values
    found = torch.searchsorted(ids, items.contiguous()).clamp(max=ids.shape[1] - 1)
    return ids.gather(1, found) == items


NegativeSource = Own | Shared
NEGATIVE_SOURCES: Mapping[str, Callable[..., NegativeSource]] = {"own": Own, "shared": Shared}
