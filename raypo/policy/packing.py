"""Shared-prefix packing: a prompt once, followed by the tree of its responses; users side by side.

A user's block is the prompt and then its responses, of which every common prefix is there once
(`response_tree`). A token attends to the prompt and to its ancestors in the tree, and its position
continues where the prompt ends, so that log-probs are those of the plain sequence prompt +
response. A response's last token is predicted but never read, so it is not in the row, unless
another response goes on after it. Blocks of different lengths share a row up to a token budget, so
that rows hold little padding; no block is split, and none attends to another.

Shapes: B users, M responses per user, R rows, T row length, S columns that predict a token, N
predicted tokens in total.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from raypo.policy.response_tree import response_tree

_PADDING = -1


@dataclass(frozen=True)
class Block:
    """Position of a user: columns [start, start + length) of a row, the prompt first.

    Attributes:
        row: index of the packed row.
        start: first column.
        prompt: number of tokens of the prompt.
        length: number of tokens of prompt and responses.
        first: number of tokens of prompt and first response.
    """

    row: int
    start: int
    prompt: int
    length: int
    first: int

    @property
    def end(self) -> int:
        """One past the block's last column."""
        return self.start + self.length


@dataclass(frozen=True)
class PackedResponses:
    """Packed rows of tokens, and the columns that predict the responses.

    Attributes:
        tokens: [R, T] token ids.
        positions: [R, T] position ids; those of a response continue from its prompt.
        ends: [R, T] one past the last column that attends to the token: the block's end for the
            prompt, the end of what follows it in the tree for a response's token. Column q attends
            to column k where k <= q < ends[k].
        users: [R, T] index of the user, -1 for padding.
        sources: [S] flat columns (row * T + column) whose hidden state predicts a token.
        source_of: [N] index into `sources` of the column that predicts the token, ascending.
        targets: [N] predicted tokens.
        response_of: [N] flat response (user * M + response) that the token belongs to.
        lengths: [B, M] number of response tokens, end-of-sequence included.
        blocks: block of each user, in the order of rows and columns.
        marker_columns: [V] flat columns whose embedding a projector gives; None for no markers.
        marker_features: [V, f] input of the projector.
        is_paired: results are differences of consecutive responses: of those that end with "Yes"
            and with "No", which makes log-odds of their sums.
    """

    tokens: Tensor
    positions: Tensor
    ends: Tensor
    users: Tensor
    sources: Tensor
    source_of: Tensor
    targets: Tensor
    response_of: Tensor
    lengths: Tensor
    blocks: tuple[Block, ...]
    marker_columns: Tensor | None = None
    marker_features: Tensor | None = None
    is_paired: bool = False

    def to(self, device: torch.device | str) -> PackedResponses:
        """The same rows on another device.

        A GPU takes them from pinned memory: a copy from other memory waits for all work before it,
        and so would end the overlap of packing with the previous micro-batch's backward pass.
        """
        is_to_gpu = torch.device(device).type == "cuda" and self.tokens.device.type == "cpu"
        source = self.pinned() if is_to_gpu else self
        return source._mapped(lambda value: value.to(device, non_blocking=is_to_gpu))

    def pinned(self) -> PackedResponses:
        """The same rows in pinned memory; those that are in it already are not copied."""
        return self._mapped(lambda value: value.pin_memory())

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> PackedResponses:
        """The same rows with a function of each tensor in its place."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        mapped: dict[str, Any] = {
            name: function(value) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, **mapped)

    def without_markers(self) -> PackedResponses:
        """The same rows with the plain embeddings of the markers' tokens."""
        return replace(self, marker_columns=None, marker_features=None)

    @property
    def result_lengths(self) -> Tensor:
        """[B, M] number of tokens of each result's response; [B, M / 2] of paired ones."""
        return self.lengths[:, ::2] if self.is_paired else self.lengths

    def paired(self, sums: Tensor) -> Tensor:
        """Results [B, M / 2] of paired responses' sums [B, M]; the sums themselves otherwise."""
        return sums[:, ::2] - sums[:, 1::2] if self.is_paired else sums

    @property
    def num_tokens(self) -> int:
        """Number of tokens in the rows, without padding."""
        return sum(block.length for block in self.blocks)

    @property
    def num_first_tokens(self) -> int:
        """Number of tokens that the rows would hold with the first response of each user alone."""
        return sum(block.first for block in self.blocks)

    @property
    def padding_share(self) -> float:
        """Share of the rows' columns that hold padding."""
        return 1 - self.num_tokens / self.tokens.numel()


def pack_responses(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Sequence[int]]],
    pad_token_id: int,
    token_budget: int | None = None,
    multiple_of: int = 1,
    markers: Sequence[Markers] | None = None,
    is_paired: bool = False,
) -> PackedResponses:
    """Pack users' prompts and responses into rows.

    Args:
        prompts: B lists of token ids, none empty.
        responses: B lists of M lists of token ids, none empty. Each ends with the end-of-sequence
            token if that is to be scored too.
        pad_token_id: fills rows up to the longest; never attended to.
        token_budget: tokens per row, in as many rows as first fit needs and of about the same
            length; a longer user gets a row of its own. None puts all users into one row.
        multiple_of: rows are padded to a multiple of it, for kernels that work in blocks.
        markers: of each prompt, the tokens whose embeddings a projector gives.
        is_paired: results are differences of consecutive responses.

    Raises:
        ValueError: a prompt or response is empty, or users have different numbers of responses.
    """
    _check(prompts, responses)
    users = [_user(prompt, answers) for prompt, answers in zip(prompts, responses, strict=True)]
    rows = even_rows([len(user.tokens) for user in users], token_budget)
    longest = max(sum(len(users[index].tokens) for index in row) for row in rows)
    width = -(-longest // multiple_of) * multiple_of
    per_user = len(responses[0])
    columns: dict[str, list[list[int]]] = {name: [] for name in _FILLS}
    blocks: list[Block] = []
    sources: list[int] = []
    source_of: list[int] = []
    targets: list[int] = []
    response_of: list[int] = []
    for number, row in enumerate(rows):
        filled: dict[str, list[int]] = {name: [] for name in _FILLS}
        for index in row:
            user = users[index]
            start = len(filled["tokens"])
            for column, predicted in user.predictions:
                for response, token in predicted:
                    source_of.append(len(sources))
                    targets.append(token)
                    response_of.append(index * per_user + response)
                sources.append(number * width + start + column)
            filled["tokens"] += user.tokens
            filled["positions"] += user.positions
            filled["ends"] += [start + end for end in user.ends]
            filled["users"] += [index] * len(user.tokens)
            prompt = len(prompts[index])
            first = prompt + len(responses[index][0]) - 1
            blocks.append(Block(number, start, prompt, len(user.tokens), first))
        for name, values in filled.items():
            columns[name].append(values)
    marker_columns, marker_features = _markers(markers, blocks, rows, width)
    return PackedResponses(
        **{
            name: _pad(columns[name], width, fill)
            for name, fill in (_FILLS | {"tokens": pad_token_id, "ends": width}).items()
        },
        sources=torch.tensor(sources),
        source_of=torch.tensor(source_of),
        targets=torch.tensor(targets),
        response_of=torch.tensor(response_of),
        lengths=torch.tensor([[len(answer) for answer in answers] for answers in responses]),
        blocks=tuple(blocks),
        marker_columns=marker_columns,
        marker_features=marker_features,
        is_paired=is_paired,
    )


class Markers(Protocol):
    """Tokens of one prompt whose embeddings a projector gives."""

    @property
    def positions(self) -> Sequence[int]:
        """[v] token positions in the prompt."""

    @property
    def features(self) -> np.ndarray:
        """[v, f] input of the projector."""


def _markers(
    markers: Sequence[Markers] | None,
    blocks: Sequence[Block],
    rows: Sequence[Sequence[int]],
    width: int,
) -> tuple[Tensor | None, Tensor | None]:
    """Flat columns and features of all users' markers, in the order of the blocks."""
    if markers is None:
        return None, None
    users = [index for row in rows for index in row]
    columns = [
        block.row * width + block.start + position
        for user, block in zip(users, blocks, strict=True)
        for position in markers[user].positions
    ]
    features = np.concatenate([markers[user].features for user in users])
    return torch.tensor(columns, dtype=torch.long), torch.from_numpy(features)


# Value of padding in each [R, T] tensor; tokens and ends depend on the batch.
_FILLS = {"tokens": 0, "positions": 0, "ends": 0, "users": _PADDING}


@dataclass(frozen=True)
class _User:
    tokens: list[int]
    positions: list[int]
    ends: list[int]  # relative to the block
    predictions: list[tuple[int, list[tuple[int, int]]]]  # column -> (response, token) predicted


def _user(prompt: Sequence[int], responses: Sequence[Sequence[int]]) -> _User:
    tree, p = response_tree(responses), len(prompt)
    return _User(
        tokens=[*prompt, *tree.tokens],
        positions=[*range(p), *(p + depth for depth in tree.depths)],
        ends=[p + len(tree.tokens)] * p + [p + end for end in tree.ends],
        predictions=[(p + node, predicted) for node, predicted in tree.predictions],
    )


def first_fit(lengths: Sequence[int], budget: int | None) -> list[list[int]]:
    """Users of each row: every user goes into the first row with enough free columns.

    Args:
        lengths: columns that each user needs.
        budget: columns of a row; a longer user has a row alone. None is one row for all.
    """
    if budget is None:
        return [list(range(len(lengths)))]
    rows: list[list[int]] = []
    free: list[int] = []
    for index, length in enumerate(lengths):
        fitting = next((row for row, columns in enumerate(free) if columns >= length), None)
        if fitting is None:
            rows.append([index])
            free.append(budget - length)
        else:
            rows[fitting].append(index)
            free[fitting] -= length
    return rows


def even_rows(lengths: Sequence[int], budget: int | None) -> list[list[int]]:
    """Users of each row, as `first_fit` places them into the shortest rows that are no more.

    Rows are padded to the longest: filled to the budget one after the other, the last one would
    hold little.

    Args:
        lengths: columns that each user needs.
        budget: columns of a row; a longer user has a row alone. None is one row for all.
    """
    rows = first_fit(lengths, budget)
    if budget is None or len(rows) == 1:
        return rows
    too_short, enough = -(-sum(lengths) // len(rows)) - 1, budget
    while enough - too_short > 1:
        middle = (too_short + enough) // 2
        tried = first_fit(lengths, middle)
        if len(tried) <= len(rows):
            enough, rows = middle, tried
        else:
            too_short = middle
    return rows


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
