"""The audit of a prepared data set."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from raypo.audit.baselines import RuleScore, known_orders, rule_scores
from raypo.audit.checks import Finding, find_in_orders, find_in_rows, find_in_rules
from raypo.data.dataset import Dataset
from raypo.io.progress import Progress, no_progress

_WEIGHT = {"severe": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Audit:
    """What trivial rules score on the test rows, and what is wrong with rows.

    Attributes:
        rules: blind ones first, each by falling HitRatio@1.
        findings: the severest first.
        rows: test rows. candidates: of each.
        sampled: whether the rows are those of some users of a larger data set.
    """

    rules: tuple[RuleScore, ...]
    findings: tuple[Finding, ...]
    rows: int
    candidates: int
    sampled: bool = False

    @property
    def severe(self) -> bool:
        """Whether scores on this data set mean something else than they seem to."""
        return any(finding.severity == "severe" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Plain values as JSON gives them back, for `dataset.json`."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values


def audit(dataset: Dataset, progress: Progress = no_progress) -> Audit:
    """Audit a data set: a few seconds for a hundred thousand rows.

    Rules are made from training rows, take what choice they have from validation rows, and are
    scored on test rows.
    """
    progress(0, 3, "orders")
    ranks = known_orders(dataset)
    progress(1, 3, "rules")
    rules = rule_scores(dataset, dataset.test, dataset.validation, ranks)
    candidates = len(dataset.test["candidates"].iat[0])
    findings = [
        *find_in_rules(dataset, rules, 1 / candidates),
        *find_in_orders(dataset, ranks),
    ]
    progress(2, 3, "rows")
    findings += find_in_rows(dataset)
    progress(3, 3, "done")
    return Audit(
        tuple(sorted(rules, key=lambda rule: (not rule.blind, -rule.hit_ratio))),
        tuple(sorted(findings, key=lambda finding: _WEIGHT[finding.severity])),
        len(dataset.test),
        candidates,
        len(dataset.test) < dataset.info.get("counts", {}).get("test", 0),
    )
