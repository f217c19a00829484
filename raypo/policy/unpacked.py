"""Log-probs of one row per response, for decoders that cannot run on packed rows.

A row is prompt and response, as the plain computation has it, so that the prompt is computed once
per response. Recurrent states, attention of a decoder's own and rotary frequencies that follow the
row are right in such rows.

Shapes: B users, M responses each, N predicted tokens, C rows of a call, L their longest length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from raypo.policy.packed import decoder_of, projected, response_sums
from raypo.policy.packing import PackedResponses
from raypo.policy.projector import Projector, embedded_markers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class _Row:
    """A prompt with one response.

    Attributes:
        tokens: token ids of both.
        prompt: number of tokens of the prompt.
        response: flat index (user * M + response).
        markers: (position, index among the batch's markers) of the prompt's markers.
    """

    tokens: list[int]
    prompt: int
    response: int
    markers: list[tuple[int, int]]


def unpacked_logps(
    causal_lm: PreTrainedModel,
    packed: PackedResponses,
    by_length: bool,
    head_chunks: int | None = None,
    projector: Projector | None = None,
) -> Tensor:
    """Summed log-probs [B, M] in float32.

    Args:
        causal_lm: decoder with an attention of transformers' own.
        packed: on the decoder's device.
        by_length: rows of equal length share a call, so that none is padded; otherwise all rows
            share one call and are padded on the right.
        head_chunks: calls of the LM head; None is as many as its logits need.
        projector: gives the embeddings of markers.
    """
    rows = _rows(packed)
    embeddings = projected(projector, packed)
    calls: dict[int, list[_Row]] = {}
    for row in rows:
        calls.setdefault(len(row.tokens) if by_length else 0, []).append(row)
    hidden = torch.cat(
        [_predicting_states(causal_lm, own, packed, embeddings) for own in calls.values()]
    )
    in_order = [row for own in calls.values() for row in own]
    return response_sums(causal_lm, hidden, _predictions(in_order, packed), head_chunks)


def longest_row(packed: PackedResponses) -> int:
    """Number of tokens of the longest prompt with one response."""
    # The last token of a response is predicted but not in the packed row.
    return int(packed.positions.max()) + 2


def num_tokens(packed: PackedResponses) -> int:
    """Number of tokens of all rows, without padding."""
    per_user = packed.lengths.shape[1]
    return sum(block.prompt for block in packed.blocks) * per_user + int(packed.lengths.sum())


def _rows(packed: PackedResponses) -> list[_Row]:
    responses: list[list[int]] = [[] for _ in range(packed.lengths.numel())]
    for response, target in zip(packed.response_of.tolist(), packed.targets.tolist(), strict=True):
        responses[response].append(target)
    per_user = packed.lengths.shape[1]
    tokens = packed.tokens.tolist()
    users = packed.users.tolist()
    rows = []
    markers = [] if packed.marker_columns is None else packed.marker_columns.tolist()
    width = packed.tokens.shape[1]
    for block in packed.blocks:
        start = block.row * width + block.start
        own = [
            (column - start, index)
            for index, column in enumerate(markers)
            if start <= column < start + block.prompt
        ]
        prompt = tokens[block.row][block.start : block.start + block.prompt]
        first = users[block.row][block.start] * per_user
        for index in range(first, first + per_user):
            rows.append(_Row(prompt + responses[index], block.prompt, index, own))
    return rows


def _predicting_states(
    causal_lm: PreTrainedModel,
    rows: list[_Row],
    packed: PackedResponses,
    embeddings: Tensor | None,
) -> Tensor:
    """Hidden states [N', d] that predict the tokens of these rows' responses."""
    width = max(len(row.tokens) for row in rows)
    padded = [row.tokens + [row.tokens[-1]] * (width - len(row.tokens)) for row in rows]
    mask = [[1] * len(row.tokens) + [0] * (width - len(row.tokens)) for row in rows]
    device = packed.tokens.device
    is_padded = any(len(row.tokens) < width for row in rows)
    marked, which = _markers_of(rows, width, device)
    own = None if embeddings is None else embeddings[which]
    with embedded_markers(causal_lm, None if own is None else marked, own):
        hidden = decoder_of(causal_lm)(
            input_ids=torch.tensor(padded, device=device),
            attention_mask=torch.tensor(mask, device=device) if is_padded else None,
            use_cache=False,
        ).last_hidden_state
    columns = [
        index * width + column
        for index, row in enumerate(rows)
        for column in range(row.prompt - 1, len(row.tokens) - 1)
    ]
    states: Tensor = hidden.flatten(0, 1).index_select(0, torch.tensor(columns, device=device))
    return states


def _markers_of(rows: list[_Row], width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Flat columns of the markers in a call's rows, and their indices in the batch."""
    pairs = [
        (number * width + position, index)
        for number, row in enumerate(rows)
        for position, index in row.markers
    ]
    columns, indices = torch.tensor(pairs, dtype=torch.long, device=device).view(-1, 2).T
    return columns, indices


def _predictions(rows: list[_Row], packed: PackedResponses) -> PackedResponses:
    """The batch with a predicting column for each token of the rows' responses, in their order."""
    targets = [token for row in rows for token in row.tokens[row.prompt :]]
    response_of = [row.response for row in rows for _ in row.tokens[row.prompt :]]
    device = packed.tokens.device
    return replace(
        packed,
        source_of=torch.arange(len(targets), device=device),
        targets=torch.tensor(targets, device=device),
        response_of=torch.tensor(response_of, device=device),
    )
