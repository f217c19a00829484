"""Candidates that the packed scorer ranks in a second."""

from __future__ import annotations

from typing import Any

import torch

from raypo.bench.gpu.policies import PADDING, RandomPolicy, triton_head
from raypo.bench.measure import measure_in_turn
from raypo.policy.scoring import score_responses


def scoring_rows(
    policy: RandomPolicy, candidates: int, batch_sizes: tuple[int, ...], repeats: int
) -> list[dict[str, Any]]:
    """A row for each number of users in a pass, on a GPU with and without the LM head's kernel.

    Tokens are on the host at the start, scores at the end.

    Args:
        policy: with as many users as the largest pass, and candidates - 1 negatives.
        candidates: of each user.
        batch_sizes: users in a pass.
        repeats: rounds that count.
    """
    policy.model.eval()
    rows = _rows(policy, candidates, batch_sizes, repeats, "torch")
    if policy.device.type == "cuda":
        with triton_head(policy.model):
            rows += _rows(policy, candidates, batch_sizes, repeats, "triton")
    policy.model.train()
    return rows


def _rows(
    policy: RandomPolicy,
    candidates: int,
    batch_sizes: tuple[int, ...],
    repeats: int,
    head_kernel: str,
) -> list[dict[str, Any]]:
    rows = []
    for users in batch_sizes:
        drawn = policy.users.first(users, candidates - 1)

        def score(drawn: Any = drawn, users: int = users) -> None:
            score_responses(policy.policy, drawn.prompts, drawn.responses, PADDING, users)

        row = {
            "model": policy.name,
            "head_kernel": head_kernel,
            "candidates": candidates,
            "users_in_a_pass": users,
        }
        try:
            measured = measure_in_turn({"score": score}, policy.device, repeats)["score"]
        except torch.cuda.OutOfMemoryError:
            rows.append(row | {"fits": False})
            continue
        rows.append(
            row
            | {
                "fits": True,
                "seconds": measured.best,
                "users_per_second": users / measured.best,
                "candidates_per_second": users * candidates / measured.best,
            }
        )
    return rows
