"""Answers kept as they come, so that an interrupted evaluation goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

_KEY = ["name", "row", "order"]


class AnswerStore:
    """One line of JSON per answer; the same question is kept once, its first answer.

    A question is a model's name, a row's number and an order of the row's candidates (0 is the data
    set's own).
    """

    def __init__(self, file: Path) -> None:
        """Read what is there; a last line that was cut off in writing is dropped."""
        self._file = file
        self._answers: dict[tuple[str, int, int], dict[str, Any]] = {}
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = 0
        if file.exists():
            for line in file.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break
                self._remember(json.loads(line))
                whole += len(line)
        self._stream = file.open("ab")
        self._stream.truncate(whole)

    def __len__(self) -> int:
        return len(self._answers)

    def missing(self, questions: pd.DataFrame) -> pd.DataFrame:
        """Those of the questions (columns name, row, order) without an answer."""
        known = [key in self._answers for key in self._keys(questions)]
        return questions[[not one for one in known]]

    def add(self, answer: Mapping[str, Any]) -> None:
        """Keep an answer: name, row, order, and what was said."""
        if self._remember(dict(answer)):
            self._stream.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
            self._stream.flush()

    def frame(self) -> pd.DataFrame:
        """All answers, one row each, by name, row and order."""
        frame = pd.DataFrame(list(self._answers.values()))
        return frame.sort_values(_KEY, ignore_index=True) if len(frame) else frame

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _remember(self, answer: dict[str, Any]) -> bool:
        key = (str(answer["name"]), int(answer["row"]), int(answer["order"]))
        new = key not in self._answers
        if new:
            self._answers[key] = answer
        return new

    @staticmethod
    def _keys(questions: pd.DataFrame) -> list[tuple[str, int, int]]:
        columns = (questions[name] for name in _KEY)
        return [(str(n), int(r), int(o)) for n, r, o in zip(*columns, strict=True)]
