"""What training and evaluation cost, and remarks on single models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raypo.evaluation.position_bias import position_remark
from raypo.evaluation.report.charts import Mark
from raypo.evaluation.report.figures import model_mark
from raypo.evaluation.report.runs import ReportRun


@dataclass(frozen=True)
class CostRow:
    """A model's row in the table of costs; cells may be empty.

    Attributes:
        model: name and colour.
        training: optimiser steps and minutes.
        tokens_per_second: median over the training steps.
        peak_memory: GiB.
        answers_per_second: per mode.
        tokens: per answer and mode, prompt + answer.
    """

    model: Mark
    training: str
    tokens_per_second: str
    peak_memory: str
    answers_per_second: str
    tokens: str


def cost_rows(runs: Sequence[ReportRun]) -> list[CostRow]:
    """A row per model whose costs are known."""
    rows = []
    for index, run in enumerate(runs):
        steps = [line for line in run.training if "tokens_per_second" in line]
        cost = run.evaluated.get("cost", {})
        if steps or cost:
            rows.append(CostRow(model_mark(index, run), *_training(steps), *_inference(cost)))
    return rows


def _training(steps: Sequence[dict[str, Any]]) -> tuple[str, str, str]:
    if not steps:
        return "", "", ""
    minutes = sum(line.get("seconds", 0.0) for line in steps) / 60
    speed = np.median([line["tokens_per_second"] for line in steps])
    memory = max(line.get("peak_memory_gib", 0.0) for line in steps)
    return (
        f"{len(steps)} steps, {minutes:.1f} min",
        f"{speed:.0f}",
        f"{memory:.1f}" if memory else "",
    )


def _inference(cost: dict[str, dict[str, Any]]) -> tuple[str, str]:
    speeds = [
        f"{mode}: {one['answers_per_second']:.2f}"
        for mode, one in cost.items()
        if one.get("answers_per_second")
    ]
    tokens = [
        f"{mode}: {one['prompt_tokens']:.0f} + {one['answer_tokens']:.0f}"
        for mode, one in cost.items()
    ]
    return "; ".join(speeds), "; ".join(tokens)


def remarks(runs: Sequence[ReportRun]) -> list[str]:
    """Sentences on ranking scores, greedy checks, places of candidates and truncated prompts."""
    return [f"{run.name}: {remark}" for run in runs for remark in _remarks(run)]


def _remarks(run: ReportRun) -> list[str]:
    found = []
    if run.evaluated.get("hints"):
        found.append(str(run.evaluated["hints"]))
    likelihood = run.metrics.get("likelihood", {})
    if run.length_normalised and likelihood:
        found.append("candidates are ranked by log-probability per token.")
    check = run.evaluated.get("greedy_check")
    if check and check.get("error"):
        found.append(f"the check of generated answers failed ({check['error']}).")
    elif check:
        found.append(
            f"{check['same']} of {check['rows']} generated answers equal the policy's own greedy "
            "decoding."
        )
    # Evaluations of earlier versions call permutations orders.
    permutations = likelihood.get("permutations") or likelihood.get("orders")
    if permutations:
        ratios = ", ".join(f"{ratio:.3f}" for ratio in permutations["HitRatio@1"])
        found.append(
            f"HitRatio@1 under other permutations of the candidates: {ratios}; the same candidate "
            f"ranks first under all of them in {permutations['same first']:.1%} of rows."
        )
    if likelihood.get("intervals", {}).get("PositionBias"):
        bias = position_remark(likelihood["PositionBias"], *likelihood["intervals"]["PositionBias"])
        found += [bias] if bias else []
    if run.evaluated.get("cut_prompts"):
        found.append(f"{run.evaluated['cut_prompts']} prompts were truncated to fit.")
    return found
