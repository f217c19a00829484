"""`raypo prompts`: what a policy reads, as text and as tokens, for other engines or for reading."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raypo.assets import resolve_model
from raypo.config import PromptsConfig
from raypo.data.dataset import load_dataset, sample_rows
from raypo.orchestration.evaluation_setup import recorded_encoder


def prompts(config: PromptsConfig) -> Iterator[dict[str, Any]]:
    """Prompts of held-out rows, as `raypo evaluate` gives them to the policy.

    Args:
        config: rows and policy.

    Yields:
        row (number in its split), prompt (text), prompt_token_ids, candidates and target (titles).

    Raises:
        InputError: an input is wrong.
    """
    dataset = load_dataset(config.data)
    if config.split != "test":
        dataset.require_rows(config.split)
    folder, adapter = resolve_model(config.policy.model), config.policy.adapter
    _, encoder = recorded_encoder(config.policy, folder, [adapter], dataset)
    rows = sample_rows(getattr(dataset, config.split), config.max_rows, config.seed)
    titles = dataset.titles
    for row in rows.itertuples():
        users = encoder.encode([row.history], [row.candidates])
        yield {
            "row": int(row.row),
            "prompt": encoder.tokenizer.decode(users.prompts[0]),
            "prompt_token_ids": users.prompts[0],
            "candidates": [titles[item] for item in row.candidates],
            "target": titles[row.target],
        }
