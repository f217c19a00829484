"""Rows to token ids, the same for training, scoring and generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from raypo.data.prompts import render


@dataclass(frozen=True)
class Encoder:
    """Prompts and responses as tokens.

    Attributes:
        tokenizer: a transformers tokenizer with an end-of-sequence token.
        template: text of `load_template`.
        titles: title of item i at position i.
    """

    tokenizer: Any
    template: str
    titles: Sequence[str]
    _responses: dict[int, list[int]] = field(default_factory=dict, repr=False)

    def prompt(self, history: Sequence[int], candidates: Sequence[int]) -> list[int]:
        """Token ids of the filled template, with whatever the tokenizer puts before a text."""
        text = render(
            self.template,
            [self.titles[item] for item in history],
            [self.titles[item] for item in candidates],
        )
        return list(self.tokenizer(text).input_ids)

    def response(self, item: int) -> list[int]:
        """Token ids of the item's title as an answer, end-of-sequence included."""
        if item not in self._responses:
            ids = self.tokenizer(" " + self.titles[item], add_special_tokens=False).input_ids
            self._responses[item] = [*ids, self.tokenizer.eos_token_id]
        return self._responses[item]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))
