"""Shared-prefix packing: a prompt once, followed by all of its responses, in one row.

Row of one user with m responses: prompt, response 1, ..., response m, padding. Each response sees
the prompt and itself alone, and its positions go on where the prompt ends, so that its log-probs
are those of the plain sequence prompt + response. A response's last token is predicted but never
read, so it takes no place in the row; and the prompt's last token, which predicts every response's
first token, is one place for all of them.

Shapes: B users, M responses per user, T row length, S places that predict something, N predicted
tokens in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

_PADDING = -1


@dataclass(frozen=True)
class PackedResponses:
    """Token rows and where in them the responses are predicted.

    Attributes:
        tokens: [B, T] token ids.
        positions: [B, T] rotary positions; a response's go on from its prompt.
        segments: [B, T] 0 prompt, 1..M the response, -1 padding.
        sources: [S] flat places (row * T + column) whose hidden state predicts a token, ascending.
        source_of: [N] which of `sources` predicts the token, ascending.
        targets: [N] the predicted token.
        response_of: [N] flat response (user * M + response) that the token belongs to.
        lengths: [B, M] response tokens, end-of-sequence included.
    """

    tokens: Tensor
    positions: Tensor
    segments: Tensor
    sources: Tensor
    source_of: Tensor
    targets: Tensor
    response_of: Tensor
    lengths: Tensor

    def to(self, device: torch.device | str) -> PackedResponses:
        """The same rows on another device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self)}
        return PackedResponses(**moved)

    def attention_mask(self) -> Tensor:
        """Boolean [B, 1, T, T], True where the query (row) may attend to the key (column)."""
        segments = self.segments
        width = segments.shape[1]
        causal = torch.ones(width, width, dtype=torch.bool, device=segments.device).tril()
        query, key = segments[:, :, None], segments[:, None, :]
        visible = (causal & ((key == 0) | (key == query))) | torch.eye(
            width, dtype=torch.bool, device=segments.device
        )
        return visible[:, None]

    @property
    def padding_share(self) -> float:
        """Share of the rows' places that hold no token."""
        return float((self.segments == _PADDING).float().mean())


def pack_responses(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Sequence[int]]],
    pad_token_id: int,
) -> PackedResponses:
    """Lay out each user's prompt and responses as one row.

    Args:
        prompts: B token id lists, none empty.
        responses: B lists of M token id lists, none empty; each ends with the end-of-sequence
            token if that is to be scored too.
        pad_token_id: fills rows up to the longest; never attended to.

    Raises:
        ValueError: empty prompt or response, or users with different numbers of responses.
    """
    _check(prompts, responses)
    rows = [_row(prompt, answers) for prompt, answers in zip(prompts, responses, strict=True)]
    width = max(len(row.tokens) for row in rows)
    per_user = len(responses[0])
    sources: list[int] = []
    source_of: list[int] = []
    targets: list[int] = []
    response_of: list[int] = []
    for user, row in enumerate(rows):
        for column, predicted in row.predictions:
            for response, token in predicted:
                source_of.append(len(sources))
                targets.append(token)
                response_of.append(user * per_user + response)
            sources.append(user * width + column)
    return PackedResponses(
        tokens=_pad([row.tokens for row in rows], width, pad_token_id),
        positions=_pad([row.positions for row in rows], width, 0),
        segments=_pad([row.segments for row in rows], width, _PADDING),
        sources=torch.tensor(sources),
        source_of=torch.tensor(source_of),
        targets=torch.tensor(targets),
        response_of=torch.tensor(response_of),
        lengths=torch.tensor([[len(answer) for answer in answers] for answers in responses]),
    )


@dataclass(frozen=True)
class _Row:
    tokens: list[int]
    positions: list[int]
    segments: list[int]
    predictions: list[tuple[int, list[tuple[int, int]]]]  # column -> (response, token) predicted


def _row(prompt: Sequence[int], responses: Sequence[Sequence[int]]) -> _Row:
    tokens, positions, segments = list(prompt), list(range(len(prompt))), [0] * len(prompt)
    firsts = [(index, response[0]) for index, response in enumerate(responses)]
    predictions = [(len(prompt) - 1, firsts)]
    for index, response in enumerate(responses):
        for offset in range(len(response) - 1):
            predictions.append((len(tokens), [(index, response[offset + 1])]))
            tokens.append(response[offset])
            positions.append(len(prompt) + offset)
            segments.append(index + 1)
    return _Row(tokens, positions, segments, predictions)


def _pad(rows: Sequence[list[int]], width: int, value: int) -> Tensor:
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def _check(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[Sequence[int]]]) -> None:
    if not prompts or len(prompts) != len(responses):
        raise ValueError(f"got {len(prompts)} prompts and {len(responses)} lists of responses")
    counts = {len(answers) for answers in responses}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"every user needs the same number of responses, got {sorted(counts)}")
    for user, (prompt, answers) in enumerate(zip(prompts, responses, strict=True)):
        if not len(prompt):
            raise ValueError(f"prompt {user} is empty")
        if not all(len(answer) for answer in answers):
            raise ValueError(f"user {user} has an empty response")
