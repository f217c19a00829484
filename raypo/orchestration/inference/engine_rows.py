"""What an engine's row becomes. Each Ray worker that does it imports this file and no other."""

from __future__ import annotations

from typing import Any


def engine_answer(row: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request that did not fail; Ray calls it for no other."""
    return {
        "batch": int(row["batch"]),
        "name": row["name"],
        "row": int(row["row"]),
        "permutation": int(row["permutation"]),
        "text": row["generated_text"],
        "tokens": int(row.get("num_generated_tokens") or 0),
    }
