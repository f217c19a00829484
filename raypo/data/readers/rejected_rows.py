"""Rows that cannot be used: they stop the run, or they are set aside and counted."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from raypo.config import InputError

Policy = Literal["stop", "quarantine"]


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used.

    Attributes:
        file: as the user named it. line: from 1 (of Parquet the row). problem: in words.
        content: the row, cut to 500 characters.
    """

    file: str
    line: int
    problem: str
    content: str


@dataclass
class Malformed:
    """What to do with such rows; those met since they were last drained, and how many in all."""

    policy: Policy = "stop"
    rows: list[BadRow] = field(default_factory=list)
    count: int = 0

    def add(self, file: str, line: int, problem: str, content: object = "") -> None:
        """Set the row aside.

        Raises:
            InputError: with the policy `stop`.
        """
        if self.policy == "stop":
            raise InputError(
                f"{file}:{line}: {problem} (`malformed=quarantine` sets such rows aside)"
            )
        # Undecodable bytes came as surrogates, which no file takes.
        text = str(content)[:500].encode("utf-8", "backslashreplace").decode()
        self.rows.append(BadRow(file, int(line), problem, text))
        self.count += 1

    def drain(self) -> str:
        """The rows met since the last call as lines of JSON; they are held no longer."""
        lines = [json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in self.rows]
        self.rows = []
        return "".join(lines)
