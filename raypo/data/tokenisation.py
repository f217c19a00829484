"""Rows to token ids, the same for training, scoring and generation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from raypo.config import InputError
from raypo.data.prompts import render


@dataclass(frozen=True)
class EncodedUsers:
    """Token ids of users' prompts and of the responses to each.

    Attributes:
        prompts: one list per user.
        responses: per user, one list per response, end-of-sequence included.
    """

    prompts: list[list[int]]
    responses: list[list[list[int]]]


@dataclass(frozen=True)
class Encoder:
    """Prompts and responses as tokens.

    Attributes:
        tokenizer: a transformers tokenizer with an end-of-sequence token.
        template: text of `load_template`.
        titles: title of item i at position i.
        max_prompt_tokens: longer prompts lose their oldest history items; None never cuts.
    """

    tokenizer: Any
    template: str
    titles: Sequence[str]
    max_prompt_tokens: int | None = None
    _responses: dict[int, list[int]] = field(default_factory=dict, repr=False)
    _cut: list[int] = field(default_factory=list, repr=False)

    @property
    def cut_prompts(self) -> int:
        """Prompts so far that were cut to fit."""
        return len(self._cut)

    def prompt(self, history: Sequence[int], candidates: Sequence[int]) -> list[int]:
        """Token ids of the filled template, with whatever the tokenizer puts before a text.

        Too long, it loses history items, the oldest first; never candidates or instruction.

        Raises:
            InputError: it does not fit even with the newest history item alone.
        """
        tokens = self._tokens(history, candidates)
        if self.max_prompt_tokens is None or len(tokens) <= self.max_prompt_tokens:
            return tokens
        for first in range(1, len(history)):
            tokens = self._tokens(history[first:], candidates)
            if len(tokens) <= self.max_prompt_tokens:
                self._cut.append(first)
                return tokens
        raise InputError(
            f"a prompt of {len(candidates)} candidates takes {len(tokens)} tokens with one history "
            f"item, more than the {self.max_prompt_tokens} that fit"
        )

    def _tokens(self, history: Sequence[int], candidates: Sequence[int]) -> list[int]:
        text = render(
            self.template,
            [self.titles[item] for item in history],
            [self.titles[item] for item in candidates],
        )
        return list(self.tokenizer(text).input_ids)

    def longest_response(self) -> int:
        """Tokens of the longest title among the hundred of most characters."""
        by_characters = sorted(range(len(self.titles)), key=lambda item: -len(self.titles[item]))
        return max(len(self.response(item)) for item in by_characters[:100])

    def response(self, item: int) -> list[int]:
        """Token ids of the item's title as an answer, end-of-sequence included."""
        if item not in self._responses:
            ids = self.tokenizer(" " + self.titles[item], add_special_tokens=False).input_ids
            self._responses[item] = [*ids, self.tokenizer.eos_token_id]
        return self._responses[item]

    def encode(
        self,
        histories: Iterable[Sequence[int]],
        candidates: Iterable[Sequence[int]],
        responses: Iterable[Sequence[int]] | None = None,
    ) -> EncodedUsers:
        """Token ids of several users.

        Args:
            histories: item ids of each user, oldest first.
            candidates: item ids that each user's prompt lists.
            responses: item ids whose titles are the responses; None takes the candidates.

        Raises:
            InputError: as `prompt`.
        """
        shown = list(candidates)
        answers = shown if responses is None else responses
        return EncodedUsers(
            [self.prompt(*user) for user in zip(histories, shown, strict=True)],
            [[self.response(int(item)) for item in items] for items in answers],
        )

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))
