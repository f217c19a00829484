"""Forward passes of the users that wait together, by a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from raypo.data.tokenisation import EncodedUsers
from raypo.policy.packing import first_fit


def plan_passes(users: EncodedUsers, token_budget: int) -> list[list[int]]:
    """Users of each forward pass: the longest first, each into the first pass with room.

    Args:
        users: with as many responses each as they have candidates.
        token_budget: tokens of a pass, at most, unless one user has more. Tokens that responses
            have in common are counted more than once: a pass may hold fewer.
    """
    lengths = [
        len(prompt) + sum(len(response) - 1 for response in responses)
        for prompt, responses in zip(users.prompts, users.responses, strict=True)
    ]
    order = sorted(range(len(lengths)), key=lambda user: -lengths[user])
    passes = first_fit([lengths[user] for user in order], token_budget)
    return [[order[place] for place in one] for one in passes]


def take(users: EncodedUsers, chosen: Sequence[int]) -> EncodedUsers:
    """Some of the users, with as many responses for all of them.

    Those who have fewer get their last result's responses again: a tree of responses holds equal
    ones once, so that they cost no token.
    """
    width = 2 if users.is_pointwise else 1
    most = max(len(users.responses[user]) for user in chosen)
    responses = []
    for user in chosen:
        own = users.responses[user]
        responses.append(own + own[-width:] * ((most - len(own)) // width))
    return EncodedUsers(
        [users.prompts[user] for user in chosen],
        responses,
        None if users.markers is None else [users.markers[user] for user in chosen],
        users.is_pointwise,
    )
