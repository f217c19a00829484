"""Answers on disk, written as they come, so that an interrupted evaluation can resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

_KEY = ["name", "row", "permutation"]


class AnswerStore:
    """A JSON Lines file with one answer per request; a second answer to a request is ignored.

    A request is identified by a model's name, a row number and a permutation of the row's
    candidates (0 is the data set's order).
    """

    def __init__(self, file: Path) -> None:
        """Read the answers in `file`; a last line that is incomplete is dropped."""
        self._file = file
        self._answers: dict[tuple[str, int, int], dict[str, Any]] = {}
        file.parent.mkdir(parents=True, exist_ok=True)
        complete = 0
        if file.exists():
            for line in file.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break
                self._insert(json.loads(line))
                complete += len(line)
        self._stream = file.open("ab")
        self._stream.truncate(complete)

    def __len__(self) -> int:
        return len(self._answers)

    def missing(self, requests: pd.DataFrame) -> pd.DataFrame:
        """The requests (columns name, row, permutation) that have no answer."""
        answered = [key in self._answers for key in self._keys(requests)]
        return requests[[not one for one in answered]]

    def add(self, answer: Mapping[str, Any]) -> None:
        """Append an answer: name, row, permutation, and its content."""
        if self._insert(dict(answer)):
            self._stream.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
            self._stream.flush()

    def frame(self) -> pd.DataFrame:
        """All answers, one row each, sorted by name, row and permutation."""
        frame = pd.DataFrame(list(self._answers.values()))
        return frame.sort_values(_KEY, ignore_index=True) if len(frame) else frame

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _insert(self, answer: dict[str, Any]) -> bool:
        key = (str(answer["name"]), int(answer["row"]), int(answer["permutation"]))
        new = key not in self._answers
        if new:
            self._answers[key] = answer
        return new

    @staticmethod
    def _keys(requests: pd.DataFrame) -> list[tuple[str, int, int]]:
        columns = (requests[name] for name in _KEY)
        return [(str(n), int(r), int(p)) for n, r, p in zip(*columns, strict=True)]
