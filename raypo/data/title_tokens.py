"""Titles as tokens: the same in prompt and answer, and the markers that stand beside them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from raypo.data.hints import Markers
from raypo.data.prompts import lists_candidates, render
from raypo.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger("raypo")

# The first that is one token is the marker's word, a placeholder where no vector is put.
_MARKER_WORDS = ("item", "x")
# They stand for the marker until its place is known; private, so that no title holds them.
HISTORY_MARKER, CANDIDATE_MARKER = "\ue000", "\ue001"
_CHECKED_TITLES = 8
_warned: set[tuple[str, str]] = set()
_marker_words: dict[str, str] = {}  # by name of the tokenizer


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt's token ids, and its markers where it has them."""

    tokens: list[int]
    markers: Markers | None = None

    def without_markers(self) -> EncodedPrompt:
        """The same tokens, with no marker among them."""
        if self.markers is None:
            return self
        return replace(self, markers=Markers([], self.markers.features[:0]))


def title_tokens(tokenizer: PreTrainedTokenizerBase, template: str, title: str) -> list[int]:
    """Token ids of a title as an answer: those that follow the end of the prompt.

    Tokenizers that put a space before every text would begin an answer of its own with two.
    """
    last_line = template.rsplit("\n", 1)[-1]
    ending = ":" if not last_line or "{" in last_line else last_line
    before = list(tokenizer(ending, add_special_tokens=False).input_ids)
    both = list(tokenizer(f"{ending} {title}", add_special_tokens=False).input_ids)
    if both[: len(before)] == before:
        return both[len(before) :]
    return list(tokenizer(f" {title}", add_special_tokens=False).input_ids)


def warn_about_other_tokens(
    tokenizer: PreTrainedTokenizerBase, template: str, titles: Sequence[str]
) -> None:
    """Warn, once per template, where titles begin with other tokens in a prompt than in an answer.

    Such titles cannot be copied token by token, and a model has to learn both spellings of each.
    """
    key = (template, str(tokenizer.name_or_path))
    if key in _warned or not titles:
        return
    _warned.add(key)
    step = max(1, len(titles) // _CHECKED_TITLES)
    checked = list(titles[::step][:_CHECKED_TITLES])
    for where in ("history", "candidates") if lists_candidates(template) else ("history",):
        # The first title of a list stands where the template puts it, the second after a mark.
        other = [title for title in checked if _count(tokenizer, template, title, where) < 2]
        if other:
            logger.warning(
                "prompt template: %d of %d checked titles begin with other tokens in {%s} than as "
                "an answer, such as %r; put {%s} after a space on its line",
                len(other),
                len(checked),
                where,
                other[0],
                where,
            )


def _count(tokenizer: PreTrainedTokenizerBase, template: str, title: str, where: str) -> int:
    """How often a prompt that lists a title twice has the tokens of its answer, but for the last.

    The last token may join the punctuation that follows.
    """
    listed = {"history": ["?"], "candidates": ["?"], where: [title, title]}
    prompt = render(template, listed["history"], listed["candidates"])
    wanted = title_tokens(tokenizer, template, title)
    wanted = wanted[:-1] if len(wanted) > 1 else wanted
    tokens = list(tokenizer(prompt).input_ids)
    places = range(len(tokens) - len(wanted) + 1)
    return sum(tokens[place : place + len(wanted)] == wanted for place in places)


def with_marker(title: str, marker: str, side: Literal["before", "after"]) -> str:
    """The title with a marker on one side."""
    return f"{marker} {title}" if side == "before" else f"{title} {marker}"


def encode_markers(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    history_features: np.ndarray,
    candidate_features: np.ndarray,
) -> EncodedPrompt:
    """Token ids of a prompt, and the places of its markers.

    Args:
        tokenizer: a fast one, which says where each token stands in the text.
        text: with HISTORY_MARKER and CANDIDATE_MARKER in place of the markers' word.
        history_features: [h, f] of the history's markers in their order.
        candidate_features: [k, f] of the candidates' markers in their order.

    Raises:
        InputError: the tokenizer cannot say where tokens stand, or makes no single token of the
            marker's word.
    """
    word = _marker_word(tokenizer)
    starts, kinds, plain = _take_out_markers(text, word)
    try:
        encoded = tokenizer(plain, return_offsets_mapping=True)
    except NotImplementedError:
        raise InputError(
            "policy.hints=vector: needs a fast tokenizer, which says where tokens stand in a text"
        ) from None
    offsets = encoded["offset_mapping"]
    token_of = {end: index for index, (begin, end) in enumerate(offsets) if end > begin}
    positions = []
    for start in starts:
        index = token_of.get(start + len(word))
        if index is None or offsets[index][0] not in (start, start - 1):
            raise InputError(
                f"policy.hints=vector: the tokenizer makes no single token of {word!r} in a prompt"
            )
        positions.append(index)
    counters = {HISTORY_MARKER: iter(history_features), CANDIDATE_MARKER: iter(candidate_features)}
    features = np.stack([next(counters[kind]) for kind in kinds])
    return EncodedPrompt(list(encoded["input_ids"]), Markers(positions, features))


def _marker_word(tokenizer: PreTrainedTokenizerBase) -> str:
    name = str(tokenizer.name_or_path)
    if name not in _marker_words:
        is_token = [
            len(tokenizer(f" {word}", add_special_tokens=False).input_ids) == 1
            for word in _MARKER_WORDS
        ]
        _marker_words[name] = _MARKER_WORDS[is_token.index(True) if any(is_token) else -1]
    return _marker_words[name]


def _take_out_markers(text: str, word: str) -> tuple[list[int], list[str], str]:
    """Where each marker's word begins, which marker it is, and the text with the words."""
    starts, kinds, parts, length = [], [], [], 0
    for character in text:
        is_marker = character in (HISTORY_MARKER, CANDIDATE_MARKER)
        if is_marker:
            starts.append(length)
            kinds.append(character)
        parts.append(word if is_marker else character)
        length += len(parts[-1])
    return starts, kinds, "".join(parts)
