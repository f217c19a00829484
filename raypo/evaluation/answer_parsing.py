"""Answers as columns of predictions: generated text as candidates, scores in candidate order."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from raypo.evaluation.candidate_permutations import unpermute
from raypo.evaluation.predictions import empty_predictions
from raypo.evaluation.ranking import TEXT_COLUMNS
from raypo.evaluation.requests import Mode

# Straight quotes, and curly ones by number: they are hard to tell apart on a screen.
_SURROUNDING = " \"'`*.,;:!«»" + "\u2018\u2019\u201c\u201d"


@dataclass(frozen=True)
class ModeAnswers:
    """All answers of one mode.

    Attributes:
        frame: columns name, row, permutation, and either answer (text) and tokens, or logps and
            lengths (one per candidate in the order of the request; lengths may be None).
        errors: message by model name and row, of requests without an answer.
    """

    frame: pd.DataFrame
    errors: Mapping[tuple[str, int], str] = field(default_factory=dict)


@dataclass(frozen=True)
class AnswerParser:
    """Turns answers into predictions.

    Attributes:
        rows: columns row, user_id, history, target, candidates.
        titles: title of item i at position i.
        permutation_seed: of the permutations that requests were made with.
    """

    rows: pd.DataFrame
    titles: Sequence[str]
    permutation_seed: int

    def predictions(
        self, answers: Mapping[Mode, ModeAnswers], names: Sequence[str]
    ) -> dict[str, pd.DataFrame]:
        """Predictions of each model, with the columns of `raypo.evaluation.predictions`.

        Args:
            answers: of all models, by mode.
            names: of the models.
        """
        return {name: self._predictions(answers, name) for name in names}

    def _predictions(self, answers: Mapping[Mode, ModeAnswers], name: str) -> pd.DataFrame:
        predictions = empty_predictions(self.rows)
        for mode, all_models in answers.items():
            frame = all_models.frame
            own = frame[frame["name"] == name] if len(frame) else frame
            if mode == "likelihood":
                self._add_scores(predictions, own)
            else:
                errors = {
                    row: text for (model, row), text in all_models.errors.items() if model == name
                }
                self._add_text(predictions, mode, own, errors)
        return predictions

    def _add_text(
        self, predictions: pd.DataFrame, mode: Mode, answers: pd.DataFrame, errors: dict[int, str]
    ) -> None:
        texts = dict(zip(answers["row"], answers["answer"], strict=True)) if len(answers) else {}
        columns = TEXT_COLUMNS[mode]
        column = columns.text
        predictions[column] = predictions["row"].map(texts).astype(object)
        predictions[columns.error] = predictions["row"].map(errors.get).astype(object)
        if mode == "generate":
            predictions["answer_item"] = self._items(predictions, column, match_answer)
            predictions["exact_item"] = self._items(predictions, column, match_exactly)
        else:
            predictions["constrained_item"] = self._items(predictions, column, match_exactly)

    def _items(
        self,
        predictions: pd.DataFrame,
        column: str,
        match: Callable[[str, Sequence[str]], int | None],
    ) -> Any:
        matched = []
        for answer, items in zip(predictions[column], predictions["candidates"], strict=True):
            text = answer if isinstance(answer, str) else ""
            position = match(text, [self.titles[item] for item in items])
            matched.append(None if position is None else int(items[position]))
        return pd.array(matched, dtype="Int64")

    def _add_scores(self, predictions: pd.DataFrame, answers: pd.DataFrame) -> None:
        scores: dict[int, dict[int, np.ndarray]] = {}
        lengths = {}
        for answer in answers.itertuples():
            row, number = int(answer.row), int(answer.permutation)  # type: ignore[arg-type]
            restored = unpermute(np.array(answer.logps), row, number, self.permutation_seed)
            scores.setdefault(row, {})[number] = restored
            if number == 0:
                lengths[row] = answer.lengths
        predictions["logps"] = [scores[row][0] for row in predictions["row"]]
        predictions["lengths"] = [lengths[row] for row in predictions["row"]]
        permutations = range(1, len(next(iter(scores.values()))))
        if permutations:
            predictions["permutation_logps"] = [
                [list(scores[row][number]) for number in permutations] for row in predictions["row"]
            ]


def match_answer(answer: str, titles: Sequence[str]) -> int | None:
    """The candidate that an answer names, by the papers' rule of validity.

    An answer is valid if exactly one candidate's title is a substring of it, as in the evaluation
    code that S-DPO and NAPO publish. The comparison is theirs too: case counts. A title inside
    another title ("Alien" in "Aliens") makes the longer one's answer invalid; that is the rule.

    Args:
        answer: the generated text.
        titles: the candidates' titles.

    Returns:
        Position of the title in `titles`, or None where none or several are in the answer.
    """
    found = [position for position, title in enumerate(titles) if title in answer]
    return found[0] if len(found) == 1 else None


def match_exactly(answer: str, titles: Sequence[str]) -> int | None:
    """The candidate whose title equals the answer.

    A title that equals the answer as it is comes first: "Help!" is not "Help". Otherwise both are
    normalised: Unicode's compatibility form, case, white space, and quotes or full stops
    around them. A title inside another one does no harm; a sentence around the title does.

    Args:
        answer: the generated text.
        titles: the candidates' titles.

    Returns:
        Position of the title in `titles`, or None where none or several equal the answer.
    """
    verbatim = [position for position, title in enumerate(titles) if title == answer.strip()]
    if len(verbatim) == 1:
        return verbatim[0]
    text = _normalised(answer)
    found = [position for position, title in enumerate(titles) if _normalised(title) == text]
    return found[0] if text and len(found) == 1 else None


def _normalised(text: str) -> str:
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return plain.strip(_SURROUNDING) or plain
