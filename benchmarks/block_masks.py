"""What FlexAttention's block mask costs for many users, by the tokens of a packed row.

`python benchmarks/block_masks.py [--users 64,256,1024] [--budgets 8192,16384,0]`

A budget of 0 packs all users into one row. Users have prompts of 120 to 280 random tokens and 4
responses of 6. No model: packing and the mask alone, on the CPU.
"""

from __future__ import annotations

import argparse
import random

import torch
from rich.console import Console
from torch.nn.attention.flex_attention import BlockMask

from raypo.bench.measure import measure_in_turn
from raypo.io import markdown
from raypo.policy.attention_masks import FLEX_BLOCK, Layout
from raypo.policy.packing import PackedResponses, pack_responses

HEADER = ("users", "token budget", "rows", "row length", "padding", "milliseconds", "MiB")


def packed_users(count: int, budget: int) -> PackedResponses:
    """Users of random tokens in rows of at most `budget` tokens."""
    draws = random.Random(0)

    def tokens(length: int) -> list[int]:
        return [draws.randrange(1000) for _ in range(length)]

    prompts = [tokens(draws.randrange(120, 281)) for _ in range(count)]
    responses = [[tokens(6) for _ in range(4)] for _ in range(count)]
    return pack_responses(prompts, responses, 0, budget or None, FLEX_BLOCK)


def measure(count: int, budget: int, repeats: int) -> list[str]:
    """A row of the table: the shortest time of `repeats`."""
    packed = packed_users(count, budget)

    def make() -> BlockMask:
        return Layout(packed, "flex").flex_mask(None)

    seconds = measure_in_turn({"mask": make}, torch.device("cpu"), repeats)["mask"].best
    tensors = [value for value in make().as_tuple() if hasattr(value, "element_size")]
    size = sum(value.numel() * value.element_size() for value in tensors)
    rows, width = packed.tokens.shape
    shares = f"{packed.padding_share:.1%}", f"{seconds * 1e3:.0f}", f"{size / 2**20:.1f}"
    return [f"{count:,}", f"{budget:,}" if budget else "one row", str(rows), f"{width:,}", *shares]


def main() -> None:
    """Measure each number of users with each budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", default="64,256,1024")
    parser.add_argument("--budgets", default="8192,16384,0")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    console = Console(width=200)
    rows = []
    for users in options.users.split(","):
        for budget in options.budgets.split(","):
            rows.append(measure(int(users), int(budget), options.repeats))
            console.print(" | ".join(rows[-1]))
    console.print(markdown.table(HEADER, rows))


if __name__ == "__main__":
    main()
