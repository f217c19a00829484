"""The Markdown file of a run: what was measured, with what it means in the head of each table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raypo.bench.gpu.policies import VARIANTS
from raypo.bench.gpu.record import Record, Rows
from raypo.io import markdown
from raypo.io.files import write_text


def write_report(record: Record, file: Path, total: int) -> None:
    """Write the report of a record, atomically.

    Args:
        record: whole or not.
        file: to write.
        total: measurements of a whole record.
    """
    write_text(file, report(record, total))


def report(record: Record, total: int) -> str:
    """The report as Markdown."""
    head = record.head
    parts = [
        "# raypo on one device",
        f"{head['device']}{_gpu(head)}; torch {head['torch']}, transformers "
        f"{head['transformers']}, Python {head['python']}. "
        f"{len(record.measurements)} of {total} measurements. Random weights in bfloat16, LoRA of "
        f"rank 16 on all linear layers, {head['settings']['users']} users in a micro-batch (about "
        "199 tokens of prompt and 6 a title). Seconds are of forward and backward.",
        *_products(record.rows("products")),
        *_parity(record.rows("parity")),
        *_steps(record.rows("steps")),
        *_limits(record.rows("limits")),
        *_kernels(record.rows("kernels")),
        *_scoring(record.rows("scoring")),
        *_problems(record),
    ]
    return "\n\n".join(parts) + "\n"


def _gpu(head: Mapping[str, Any]) -> str:
    return f", {head['memory_gib']} GiB, CUDA {head['cuda']}" if head["cuda"] else ""


def _products(rows: Rows) -> list[str]:
    return [
        f"A bfloat16 product of two [{row['size']}, {row['size']}] matrices runs at "
        f"{row['tflops']:.3g} TFLOP/s; the data sheet says "
        f"{_number(row['data_sheet_tflops'], 3) or 'nothing that is known here'}."
        for row in rows
    ]


def _parity(rows: Rows) -> list[str]:
    if not rows:
        return []
    return [
        "## Parity\n\nRelative error of log-probs and of the adapter's gradient against plain rows "
        "in float32, a tiny model.",
        markdown.table(
            ["compared", "log-probs", "gradients"],
            [
                [row["compared"], _number(row["logps"], 2), _number(row["gradients"], 2)]
                for row in rows
            ],
        ),
    ]


def _steps(rows: Rows) -> list[str]:
    if not rows:
        return []
    naive = {
        key: min(
            (row["seconds_per_user"] for row in rows if row["fits"] and _is_naive(row, key)),
            default=None,
        )
        for key in {(row["model"], row["negatives"]) for row in rows}
    }
    one_response = {
        (row["model"], row["variant"]): row for row in rows if row["fits"] and not row["negatives"]
    }
    lines = []
    for row in sorted(rows, key=lambda one: (one["model"], one["negatives"])):
        cells = [row["model"], row["negatives"], row["variant"]]
        if not row["fits"]:
            lines.append([*cells, row.get("problem", "does not fit"), *[""] * 7])
            continue
        slowest = naive[row["model"], row["negatives"]]
        speedup = slowest / row["seconds_per_user"] if slowest else None
        sft = one_response.get((row["model"], row["variant"]))
        floor = None
        if sft is not None and sft["users"] == row["users"]:
            floor = row["seconds"] / sft["seconds"] / (row["multiply_adds"] / sft["multiply_adds"])
        lines.append(
            [
                *cells,
                row["users"],
                _number(row["seconds"], 3),
                _number(row["tokens_per_second"], 4),
                _number(row["tflops"], 3),
                _percent(row["mfu"]),
                _number(speedup, 3),
                _number(floor, 3),
                _number(row["added_gib"], 3),
            ]
        )
    names = [
        "model", "negatives", "variant", "users", "seconds", "distinct tokens/s", "TFLOP/s", "MFU",
        "fastest naive / this, a user", "time ratio / MAC ratio", "memory added (GiB)",
    ]  # fmt: skip
    meaning = "\n".join(f"- `{name}`: {text}" for name, text in VARIANTS.items())
    return [
        "## Training steps\n\nFLOPs are counted from the shapes: 4 for each base weight and "
        "distinct token (forward, and the gradient of the layer's input), 6 for the adapter's, 12 "
        "x heads' width x layers for each pair of tokens that see each other, 4 for each weight of "
        "the LM head and predicting position. Recomputation is not counted. MFU is by the data "
        "sheet's dense peak. The next to last column divides seconds relative to one response a "
        "user by multiply-adds relative to it.\n\n" + meaning,
        markdown.table(names, lines),
    ]


def _is_naive(row: Mapping[str, Any], key: tuple[str, int]) -> bool:
    return row["variant"].startswith("naive") and (row["model"], row["negatives"]) == key


def _limits(rows: Rows) -> list[str]:
    if not rows:
        return []
    return [
        "## The largest micro-batch\n\nBy doubling.",
        markdown.table(
            ["model", "variant", "negatives", "users", "tokens", "peak (GiB)", "stopped by"],
            [
                [
                    row["model"],
                    row["variant"],
                    row["negatives"],
                    row["largest_users"],
                    row["tokens"],
                    _number(row["peak_gib"], 3),
                    "memory" if row["stopped_by_memory"] else "the plan",
                ]
                for row in rows
            ],
        ),
    ]


def _kernels(rows: Rows) -> list[str]:
    if not rows:
        return []
    return [
        "## Where the milliseconds go\n\nOne step of `packed_fused`, by kind of kernel.",
        markdown.table(
            ["model", "negatives", "kernels", "milliseconds", "share"],
            [
                [
                    row["model"],
                    row["negatives"],
                    row["kernels"],
                    _number(row["milliseconds"], 3),
                    _percent(row["share"]),
                ]
                for row in rows
            ],
        ),
    ]


def _scoring(rows: Rows) -> list[str]:
    if not rows:
        return []
    return [
        "## Scoring candidates\n\nThe packed scorer, packing on the host included.",
        markdown.table(
            ["model", "LM head", "candidates", "users in a pass", "users/s", "candidates/s"],
            [
                [
                    row["model"],
                    row["head_kernel"],
                    row["candidates"],
                    row["users_in_a_pass"],
                    _number(row.get("users_per_second"), 4) or "does not fit",
                    _number(row.get("candidates_per_second"), 4),
                ]
                for row in rows
            ],
        ),
    ]


def _problems(record: Record) -> list[str]:
    found = [
        f"- {name}: {one['problem']}"
        for name, one in record.measurements.items()
        if "problem" in one
    ]
    return ["## What failed\n\n" + "\n".join(found)] if found else []


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 10**digits else f"{value:.{digits}g}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
