"""The audit of a data set, as `dataset.json` holds it and the report shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HeuristicScore:
    """HitRatio@1 of a heuristic baseline on all test rows.

    Attributes:
        name: in words.
        baseline: learned from what users chose. A heuristic that is not cannot know anybody's
            preferences, so it should score at chance level.
        hit_ratio: HitRatio@1.
        low: lower end of its 95% interval.
        high: upper end.
    """

    name: str
    baseline: bool
    hit_ratio: float
    low: float
    high: float

    @property
    def kind(self) -> str:
        """Label in the leaderboard."""
        return "heuristic baseline" if self.baseline else "non-personalised heuristic"


@dataclass(frozen=True)
class AuditFinding:
    """A property of the data set that changes what scores on it mean.

    Attributes:
        severity: severe, warning or note.
        what: description.
        count: rows that it concerns.
        of: rows that were checked.
        advice: what to do about it.
    """

    severity: str
    what: str
    count: int
    of: int
    advice: str


@dataclass(frozen=True)
class AuditSummary:
    """What the report shows of an audit.

    Attributes:
        heuristics: scores of heuristic baselines.
        findings: the most severe first.
        rows: test rows.
        candidates: per row.
    """

    heuristics: tuple[HeuristicScore, ...]
    findings: tuple[AuditFinding, ...]
    rows: int
    candidates: int


def parse_audit(values: Mapping[str, Any]) -> AuditSummary:
    """Read the audit from its JSON.

    Args:
        values: `audit` of `dataset.json`; earlier versions call heuristics rules.
    """
    return AuditSummary(
        tuple(_heuristic(one) for one in values.get("heuristics", values.get("rules", ()))),
        tuple(
            AuditFinding(one["severity"], one["what"], one["count"], one["of"], one["advice"])
            for one in values["findings"]
        ),
        values["rows"],
        values["candidates"],
    )


def _heuristic(one: Mapping[str, Any]) -> HeuristicScore:
    baseline = one["baseline"] if "baseline" in one else not one["blind"]
    return HeuristicScore(one["name"], bool(baseline), one["hit_ratio"], one["low"], one["high"])
