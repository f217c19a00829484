"""The audit of a prepared data set."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from raypo.audit.baselines import HeuristicScore, known_orders, score_heuristics
from raypo.audit.checks import find_in_rows
from raypo.audit.finding import Finding
from raypo.audit.order_checks import find_in_heuristics, find_in_orders, find_in_positions
from raypo.data.dataset import Dataset
from raypo.io.progress import Progress, no_progress

_WEIGHT = {"severe": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Audit:
    """Scores of heuristics on the test rows, and problems in the rows.

    Attributes:
        heuristics: non-personalised ones first, then by decreasing HitRatio@1.
        findings: the most severe first.
        rows: test rows. candidates: of each.
        sampled: whether only the rows of some users of a larger data set were audited.
    """

    heuristics: tuple[HeuristicScore, ...]
    findings: tuple[Finding, ...]
    rows: int
    candidates: int
    sampled: bool = False

    @property
    def severe(self) -> bool:
        """Whether a finding is severe: scores on this data set may be misleading."""
        return any(finding.severity == "severe" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values


def audit(dataset: Dataset, progress: Progress = no_progress) -> Audit:
    """Audit a data set, in a few seconds for a hundred thousand rows.

    Heuristics are computed from training rows and scored on test rows.
    """
    progress(0, 3, "orders")
    ranks = known_orders(dataset)
    progress(1, 3, "heuristics")
    heuristics = score_heuristics(dataset, dataset.test, ranks)
    candidates = len(dataset.test["candidates"].iat[0])
    findings = [
        *find_in_heuristics(dataset, heuristics, 1 / candidates),
        *find_in_orders(dataset, ranks),
        *find_in_positions(dataset),
    ]
    progress(2, 3, "rows")
    findings += find_in_rows(dataset)
    progress(3, 3, "done")
    return Audit(
        tuple(sorted(heuristics, key=lambda one: (one.baseline, -one.hit_ratio))),
        tuple(sorted(findings, key=lambda finding: _WEIGHT[finding.severity])),
        len(dataset.test),
        candidates,
        len(dataset.test) < dataset.info.get("counts", {}).get("test", 0),
    )


def audit_summary(dataset: Dataset, progress: Progress = no_progress) -> dict[str, Any]:
    """Audit a data set, as plain values for its `dataset.json`."""
    return audit(dataset, progress).as_json()
