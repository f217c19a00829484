"""Users whose prompts and titles are as long as MovieLens', with random tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Tokens of a ranking prompt (10 titles of history, 20 candidates) and of a title: means and
# standard deviations over MovieLens-100K with SmolLM2's tokenizer, and what bounds them.
_PROMPT = (199.0, 18.0, 133, 257)
_TITLE = (5.6, 3.2, 2, 22)
_RESERVED = 8  # token ids that no user has: padding and its like


@dataclass(frozen=True)
class DrawnUsers:
    """Token ids of users: prompts [B], and per user the responses, the target's first."""

    prompts: list[list[int]]
    responses: list[list[list[int]]]

    def first(self, users: int, negatives: int) -> DrawnUsers:
        """The first users, with the target and the first negatives."""
        return DrawnUsers(
            self.prompts[:users], [own[: negatives + 1] for own in self.responses[:users]]
        )


def draw_users(users: int, negatives: int, vocab_size: int, seed: int) -> DrawnUsers:
    """Users with distinct responses.

    Args:
        users: how many.
        negatives: responses of each, beside the target's.
        vocab_size: of the model.
        seed: of the draw.
    """
    generator = np.random.default_rng(seed)

    def lengths(of: tuple[float, float, int, int], count: int) -> list[int]:
        mean, deviation, low, high = of
        drawn = generator.normal(mean, deviation, count).round()
        return [int(one) for one in np.clip(drawn, low, high)]

    def tokens(length: int) -> list[int]:
        return [int(one) for one in generator.integers(_RESERVED, vocab_size, length)]

    return DrawnUsers(
        [tokens(length) for length in lengths(_PROMPT, users)],
        [[tokens(length) for length in lengths(_TITLE, negatives + 1)] for _ in range(users)],
    )
