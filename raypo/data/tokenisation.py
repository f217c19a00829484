"""Token ids of prompts and responses, the same for training, scoring and generation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raypo.config import PolicyConfig
from raypo.data.hints import Hints, Markers, UserHints
from raypo.data.prompts import (
    is_pointwise,
    lists_candidates,
    load_template,
    render,
    render_pointwise,
)
from raypo.data.title_tokens import (
    CANDIDATE_MARKER,
    HISTORY_MARKER,
    EncodedPrompt,
    encode_markers,
    title_tokens,
    warn_about_other_tokens,
    with_marker,
)
from raypo.errors import InputError
from raypo.io.environment import set_deepspeed_accelerator
from raypo.io.files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What different architectures call the length of their context.
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len")


@dataclass(frozen=True)
class EncodedUsers:
    """Token ids of users' prompts and of the responses to each.

    Attributes:
        prompts: one list per user.
        responses: per user, one list per response, end-of-sequence included.
        markers: per user, the prompt's tokens that a projector gives; None without vector hints.
        is_pointwise: responses are pairs, of an item with "Yes" and with "No".
    """

    prompts: list[list[int]]
    responses: list[list[list[int]]]
    markers: list[Markers] | None = None
    is_pointwise: bool = False


@dataclass(frozen=True)
class Encoder:
    """Prompts and responses as tokens.

    Attributes:
        tokenizer: has an end-of-sequence token.
        template: text of `load_template`.
        titles: title of item i at position i.
        max_prompt_tokens: longer prompts lose their oldest history items; None never cuts.
        hints: what recommenders know of the candidates; None leaves them out.
        texts: text of item i at position i, which prompts show in place of its title; None shows
            titles. Answers are titles in either case.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str
    titles: Sequence[str]
    max_prompt_tokens: int | None = None
    hints: Hints | None = None
    texts: Sequence[str] | None = None
    _responses: dict[int, list[int]] = field(default_factory=dict, repr=False)
    _cut: list[int] = field(default_factory=list, repr=False)

    @property
    def shown(self) -> Sequence[str]:
        """What prompts show of item i, at position i."""
        return self.titles if self.texts is None else self.texts

    @property
    def is_pointwise(self) -> bool:
        """Whether prompts ask about one candidate at a time."""
        return is_pointwise(self.template)

    @property
    def cut_prompts(self) -> int:
        """Number of prompts so far that were cut to fit."""
        return len(self._cut)

    def prompt(self, history: Sequence[int], candidates: Sequence[int]) -> list[int]:
        """Token ids of the filled template, with the tokenizer's special tokens.

        A prompt that is too long loses its oldest history items, never candidates or instruction.

        Args:
            history: item ids, oldest first.
            candidates: item ids in the order in which the prompt lists them.

        Raises:
            InputError: the prompt does not fit even with the newest history item alone.
        """
        (hints,) = self._hints([history], [candidates], None)
        return self._fitting(history, candidates, hints).tokens

    def _hints(
        self,
        histories: Sequence[Sequence[int]],
        candidates: Sequence[Sequence[int]],
        folds: Sequence[int] | None,
        hidden: Sequence[np.ndarray] | None = None,
    ) -> list[UserHints]:
        if self.hints is None:
            return [UserHints()] * len(histories)
        if hidden is None:
            return self.hints(histories, candidates, folds)
        hints = self.hints(histories, candidates, folds, hidden)
        return [
            own.hidden() if hide.all() else own for own, hide in zip(hints, hidden, strict=True)
        ]

    def _fitting(
        self, history: Sequence[int], candidates: Sequence[int], hints: UserHints
    ) -> EncodedPrompt:
        prompt = self._prompt(history, candidates, hints, 0)
        if self.max_prompt_tokens is None or len(prompt.tokens) <= self.max_prompt_tokens:
            return prompt
        for first in range(1, len(history)):
            prompt = self._prompt(history, candidates, hints, first)
            if len(prompt.tokens) <= self.max_prompt_tokens:
                self._cut.append(first)
                return prompt
        raise InputError(
            f"a prompt of {len(candidates)} candidates takes {len(prompt.tokens)} tokens with one "
            f"history item, more than the {self.max_prompt_tokens} that fit"
        )

    def _prompt(
        self, history: Sequence[int], candidates: Sequence[int], hints: UserHints, first: int
    ) -> EncodedPrompt:
        """The prompt with the history from position `first` on."""
        if self.is_pointwise:
            before, _ = render_pointwise(self.template, [self.shown[i] for i in history[first:]])
            return EncodedPrompt(list(self.tokenizer(before).input_ids))
        marker = self.hints.marker if self.hints is not None else None
        listed = range(len(candidates)) if hints.order is None else hints.order
        history_titles = [self.shown[item] for item in history[first:]]
        titles = [self.shown[candidates[position]] for position in listed]
        marks = None if hints.marks is None else [hints.marks[position] for position in listed]
        sentence = ""
        if self.hints is not None and not hints.is_hidden:
            sentence = self.hints.sentence
        if marker is None:
            text = render(self.template, history_titles, titles, marks, sentence)
            return EncodedPrompt(list(self.tokenizer(text).input_ids))
        assert hints.history_features is not None and hints.candidate_features is not None
        text = render(
            self.template,
            [with_marker(title, HISTORY_MARKER, marker) for title in history_titles],
            [with_marker(title, CANDIDATE_MARKER, marker) for title in titles],
            marks,
            sentence,
        )
        candidate_features = hints.candidate_features[list(listed)]
        encoded = encode_markers(
            self.tokenizer, text, hints.history_features[first:], candidate_features
        )
        return encoded.without_markers() if hints.is_hidden else encoded

    def longest_response(self) -> int:
        """Number of tokens of the longest title, among the hundred with the most bytes.

        A character outside a tokenizer's own script may take as many tokens as bytes.
        """
        if self.is_pointwise:
            return max(len(t) for item in _longest(self.shown) for t in self.answers(item))
        return max(len(self.response(item)) for item in _longest(self.titles))

    def response(self, item: int) -> list[int]:
        """Token ids of the item's title as an answer, end-of-sequence included."""
        if item not in self._responses:
            ids = title_tokens(self.tokenizer, self.template, self.titles[item])
            self._responses[item] = [*ids, self.tokenizer.eos_token_id]
        return self._responses[item]

    def answers(self, item: int) -> tuple[list[int], list[int]]:
        """Token ids of the item, as it is shown, and the rest of the template, and "Yes" or "No".

        The answers end with the first token in which they differ, by which they are told apart.
        """
        _, after = render_pointwise(self.template, [])
        yes, no = (
            title_tokens(self.tokenizer, ":", f"{self.shown[item]}{after} {word}")
            for word in ("Yes", "No")
        )
        same = zip(yes, no, strict=False)
        last = next(place for place, (one, other) in enumerate(same) if one != other)
        return yes[: last + 1], no[: last + 1]

    def encode(
        self,
        histories: Iterable[Sequence[int]],
        candidates: Iterable[Sequence[int]],
        responses: Iterable[Sequence[int]] | None = None,
        folds: Sequence[int] | None = None,
        hidden: Sequence[np.ndarray] | None = None,
    ) -> EncodedUsers:
        """Token ids of several users.

        Args:
            histories: item ids of each user, oldest first.
            candidates: item ids that each user's prompt lists.
            responses: item ids whose titles are the responses; None takes the candidates.
            folds: of training rows, the fold that each is held out in, for hints; None for held-out
                rows.
            hidden: bool [k] of each user: candidates whose hints are left out; where all are, the
                prompt says nothing of hints. None leaves none out.

        Raises:
            InputError: as `prompt`.
        """
        read, shown = list(histories), list(candidates)
        answers = shown if responses is None else responses
        hints = self._hints(read, shown, folds, hidden)
        prompts = [self._fitting(*user) for user in zip(read, shown, hints, strict=True)]
        has_markers = self.hints is not None and self.hints.marker is not None
        return EncodedUsers(
            [prompt.tokens for prompt in prompts],
            [self._all_responses(items) for items in answers],
            [prompt.markers for prompt in prompts if prompt.markers] if has_markers else None,
            self.is_pointwise,
        )

    def _all_responses(self, items: Sequence[int]) -> list[list[int]]:
        if self.is_pointwise:
            return [tokens for item in items for tokens in self.answers(int(item))]
        return [self.response(int(item)) for item in items]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special tokens."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))


def make_encoder(
    policy: PolicyConfig,
    model_folder: Path,
    titles: Sequence[str],
    context: int | None = None,
    hints: Hints | None = None,
    template: str | None = None,
    texts: Sequence[str] | None = None,
) -> Encoder:
    """The encoder of a policy, with prompts limited to the model's context.

    Args:
        policy: template and `max_prompt_tokens`.
        model_folder: folder of the base model.
        titles: title of item i at position i.
        context: number of tokens of prompt and response together; None takes the model's own.
        hints: what recommenders know of the candidates; None leaves them out.
        template: text of the template; None is that of `policy.prompt`.
        texts: text of item i at position i, for `policy.item_text`; None if there are none.

    Raises:
        InputError: the longest title does not fit the context, there are no texts to show, or no
            list that hints could stand in.
    """
    check_texts(policy, texts)
    tokenizer = load_tokenizer(model_folder)
    template = load_template(policy.prompt) if template is None else template
    check_template_of_hints(policy, template)
    if not is_pointwise(template):
        warn_about_other_tokens(tokenizer, template, titles)
    shown = texts if policy.item_text else None
    encoder = Encoder(tokenizer, template, titles, hints=hints, texts=shown)
    limit = policy.max_prompt_tokens
    context = context or _context_length(model_folder)
    if context is not None:
        longest_prompt = context - encoder.longest_response()
        if longest_prompt < 1:
            raise InputError(f"the longest title does not fit {context} tokens of context")
        limit = longest_prompt if limit is None else min(limit, longest_prompt)
    return replace(encoder, max_prompt_tokens=limit)


def check_template_of_hints(policy: PolicyConfig, template: str) -> None:
    """Require a list of candidates for hints that stand in it.

    Raises:
        InputError: the template has none.
    """
    if is_pointwise(template):
        return  # refuses all hints
    if policy.hints in ("rank", "order") and not lists_candidates(template):
        raise InputError(
            f"policy.hints={policy.hints}: stand in the list of candidates, which the prompt "
            "template does not have"
        )


def check_texts(policy: PolicyConfig, texts: Sequence[str] | None) -> None:
    """Require that a data set has the texts that prompts are to show.

    Raises:
        InputError: it has none.
    """
    if policy.item_text and texts is None:
        raise InputError(
            "policy.item_text=true: the data set has no texts; prepare it with item_text"
        )


def load_tokenizer(model_folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, padding with its end-of-sequence token by default.

    Raises:
        InputError: the tokenizer has no end-of-sequence token, which responses end with.
    """
    set_deepspeed_accelerator()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    if tokenizer.eos_token_id is None:
        raise InputError(f"{model_folder}: its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _longest(texts: Sequence[str]) -> list[int]:
    """Positions of the hundred texts with the most bytes."""
    return sorted(range(len(texts)), key=lambda item: -len(texts[item].encode()))[:100]


def _context_length(model_folder: Path) -> int | None:
    values = read_json(model_folder / "config.json")
    return next((int(values[key]) for key in _CONTEXT_KEYS if key in values), None)
