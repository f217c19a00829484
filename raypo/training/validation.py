"""Validation during training: HitRatio@1 by likelihood on some validation rows."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
import torch.distributed as dist

from raypo.data.tokenisation import Encoder
from raypo.policy.attention import row_multiple
from raypo.policy.packing import pack_responses
from raypo.training.engine import Engine


@dataclass(frozen=True)
class ValidationSet:
    """What validation scores.

    Attributes:
        rows: validation rows with columns history, target and candidates.
        encoder: turns users into tokens.
        pad_token_id: fills packed rows.
        batch_size: users per rank and forward pass.
    """

    rows: pd.DataFrame
    encoder: Encoder
    pad_token_id: int
    batch_size: int


@torch.no_grad()
def validate(engine: Engine, data: ValidationSet, rank: int, world_size: int) -> float:
    """HitRatio@1 over all rows, each rank scoring its share. A collective: every rank calls it.

    All ranks run the same number of forward passes, since a partitioned model (ZeRO-3)
    communicates in each of them. Ranks with fewer rows repeat the last one, uncounted.

    Args:
        engine: policy to score with; left in training mode.
        data: rows and how to encode them.
        rank: rank of this process.
        world_size: number of ranks.
    """
    engine.policy.eval()
    num_rows = len(data.rows)
    share = -(-num_rows // world_size)
    hits = 0
    for start in range(0, share, data.batch_size):
        end = min(start + data.batch_size, share)
        indices = [i * world_size + rank for i in range(start, end)]
        batch = data.rows.iloc[[min(index, num_rows - 1) for index in indices]]
        users = data.encoder.encode(batch["history"], batch["candidates"])
        packed = pack_responses(
            users.prompts,
            users.responses,
            data.pad_token_id,
            multiple_of=row_multiple(),
            markers=users.markers,
            is_paired=users.is_pointwise,
        )
        best = engine.logps(packed.to(engine.device)).argmax(dim=1).tolist()
        for index, top, items, target in zip(
            indices, best, batch["candidates"], batch["target"], strict=True
        ):
            hits += int(index < num_rows and items[top] == target)
    engine.policy.train()
    total = torch.tensor(float(hits), device=engine.device)
    if dist.is_initialized():
        dist.all_reduce(total)
    return float(total) / num_rows
