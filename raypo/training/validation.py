"""Validation while training: HitRatio@1 by likelihood on some validation rows."""

from __future__ import annotations

import pandas as pd
import torch
import torch.distributed as dist

from raypo.data.tokenisation import Encoder
from raypo.policy.attention import row_multiple
from raypo.policy.packing import pack_responses
from raypo.training.engine import Engine


@torch.no_grad()
def validate(
    engine: Engine,
    rows: pd.DataFrame,
    encoder: Encoder,
    pad_token_id: int,
    batch_size: int,
    worker: int,
    workers: int,
) -> float:
    """HitRatio@1 over all `rows`, each worker scoring its share. Every worker must call it.

    Workers run equally many forward passes (the last ones repeat rows that do not count), since
    a partitioned model (ZeRO-3) communicates in each of them.
    """
    engine.policy.eval()
    share = -(-len(rows) // workers)
    hits = 0
    for start in range(0, share, batch_size):
        wanted = [(i * workers + worker) for i in range(start, min(start + batch_size, share))]
        batch = rows.iloc[[min(index, len(rows) - 1) for index in wanted]]
        packed = pack_responses(
            [
                encoder.prompt(history, candidates)
                for history, candidates in zip(batch["history"], batch["candidates"], strict=True)
            ],
            [[encoder.response(int(item)) for item in items] for items in batch["candidates"]],
            pad_token_id,
            multiple_of=row_multiple(),
        )
        best = engine.logps(packed.to(engine.device)).argmax(dim=1).tolist()
        for index, top, items, target in zip(
            wanted, best, batch["candidates"], batch["target"], strict=True
        ):
            hits += int(index < len(rows) and items[top] == target)
    engine.policy.train()
    total = torch.tensor(float(hits), device=engine.device)
    if dist.is_initialized():
        dist.all_reduce(total)
    return float(total) / len(rows)
