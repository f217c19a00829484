"""What an objective reads of this rank's share of a global batch, beside the log-probs.

Shapes: b users of the share, m = 1 + n responses each, the target's first.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from raypo.objectives import PreferenceBatch
from raypo.recommenders.base import catalogue_ranks
from raypo.training.batches import Batch
from raypo.training.loader import GlobalBatch
from raypo.training.step_timer import StepTimer

if TYPE_CHECKING:
    from raypo.training.trainer import Job


@dataclass(frozen=True)
class RankShare:
    """This rank's users of a global batch.

    Attributes:
        batch: the users, b of whom count.
        lengths: [b, m] response tokens.
        columns: further attributes of PreferenceBatch [b, ...] by name, on the policy's device.
        functions: attributes of PreferenceBatch that are functions.
    """

    batch: GlobalBatch
    lengths: Tensor
    columns: dict[str, Tensor]
    functions: dict[str, Any]


def make_share(
    job: Job, global_batch: GlobalBatch, timer: StepTimer, reads_vectors: bool = True
) -> RankShare:
    """Look up what the objective needs of this rank's users.

    Args:
        job: what is trained with.
        global_batch: this rank's users.
        timer: of the step.
        reads_vectors: whether markers have their projector's embeddings.
    """
    batches, counts = global_batch.micro_batches, global_batch.counts
    if not reads_vectors:
        batches = [replace(batch, packed=batch.packed.without_markers()) for batch in batches]
    own = [batch for batch, count in zip(batches, counts, strict=True) if count]
    columns = {
        "chosen_items": torch.cat([batch.chosen_items for batch in own]),
        "rejected_items": torch.cat([batch.rejected_items for batch in own]),
        "history_items": _cat_padded([batch.history_items for batch in own]),
        "seen_items": _cat_padded([batch.seen_items for batch in own]),
    }
    with timer.phase("reference"):
        columns |= _reference(job, batches, counts)
    columns = {name: column.to(job.engine.device) for name, column in columns.items()}
    functions: dict[str, Any] = {}
    if job.recommender is not None:
        with torch.no_grad():
            columns["user_embeddings"] = job.recommender.embed(columns["history_items"])
        functions["item_scores"] = job.recommender.score
        functions["item_ranks"] = functools.partial(catalogue_ranks, job.recommender)
    lengths = torch.cat([batch.packed.result_lengths for batch in own]).to(job.engine.device)
    return RankShare(GlobalBatch(batches, counts), lengths, columns, functions)


def preference_batch(
    share: RankShare, logps: Tensor, users: slice = slice(None)
) -> PreferenceBatch:
    """The objective's input.

    Args:
        share: this rank's users.
        logps: [b, m] of the users that are asked for.
        users: which of the share's users.
    """
    lengths = share.lengths[users]
    columns: dict[str, Any] = {name: column[users] for name, column in share.columns.items()}
    return PreferenceBatch(
        chosen_logps=logps[:, 0],
        rejected_logps=logps[:, 1:],
        chosen_lengths=lengths[:, 0],
        rejected_lengths=lengths[:, 1:],
        **columns,
        **share.functions,
    )


def _reference(job: Job, batches: Sequence[Batch], counts: Sequence[int]) -> dict[str, Tensor]:
    """Reference log-probs by attribute; none where the objective needs none."""
    if job.reference is None:
        return {}
    # Repeated users too: each call may be a forward pass, which all ranks run as often.
    pairs = [job.reference(batch) for batch in batches]
    chosen = [pair[0][:count] for pair, count in zip(pairs, counts, strict=True)]
    rejected = [pair[1][:count] for pair, count in zip(pairs, counts, strict=True)]
    return {
        "reference_chosen_logps": torch.cat(chosen),
        "reference_rejected_logps": torch.cat(rejected),
    }


def _cat_padded(items: Sequence[Tensor]) -> Tensor:
    """Item ids [b, h] of several batches, padded with -1 to the widest."""
    width = max(part.shape[1] for part in items)
    return torch.cat([pad(part, (0, width - part.shape[1]), value=-1) for part in items])
