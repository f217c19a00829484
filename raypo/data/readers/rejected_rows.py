"""Unusable rows: they stop the run, or are collected and counted."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from raypo.errors import InputError

Policy = Literal["stop", "quarantine"]


@dataclass(frozen=True)
class RejectedRow:
    """An unusable row.

    Attributes:
        file: as the user named it. line: from 1 (of Parquet the row). problem: in words.
        content: the row, cut to 500 characters.
    """

    file: str
    line: int
    problem: str
    content: str


@dataclass
class RejectedRows:
    """Collects unusable rows, or stops at the first.

    Attributes:
        policy: `stop` raises an error at the first; `quarantine` collects them.
        rows: collected since the last `drain`. count: of all.
    """

    policy: Policy = "stop"
    rows: list[RejectedRow] = field(default_factory=list)
    count: int = 0

    def add(self, file: str, line: int, problem: str, content: object = "") -> None:
        """Collect a row.

        Raises:
            InputError: with the policy `stop`.
        """
        if self.policy == "stop":
            raise InputError(
                f"{file}:{line}: {problem} (`malformed=quarantine` collects such rows)"
            )
        # Undecodable bytes were read as surrogates, which cannot be written.
        text = str(content)[:500].encode("utf-8", "backslashreplace").decode()
        self.rows.append(RejectedRow(file, int(line), problem, text))
        self.count += 1

    def drain(self) -> str:
        """Return the rows collected since the last call as lines of JSON, and clear them."""
        lines = [json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in self.rows]
        self.rows = []
        return "".join(lines)
