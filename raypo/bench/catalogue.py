"""Seconds and tokens of ranking a whole catalogue, as it grows: a tree of titles, and a list."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from raypo.assets import resolve_model
from raypo.bench.inputs import prepared_movielens
from raypo.config import PolicyConfig
from raypo.data.dataset import load_dataset, sample_rows
from raypo.data.prompts import load_template
from raypo.data.tokenisation import Encoder, load_tokenizer
from raypo.io.progress import Progress, no_progress
from raypo.policy.adapters import AdapterScorer
from raypo.policy.catalogue import CatalogueTree, score_catalogue
from raypo.policy.scoring import score_responses

_TITLES_OF_A_PASS = 64  # of the list: longer rows cost more attention between titles


@dataclass(frozen=True)
class CatalogueSettings:
    """What to measure.

    Attributes:
        model: folder or built-in name.
        data: prepared data set; None takes MovieLens-100K.
        sizes: numbers of titles, drawn from the catalogue; all, where it has fewer.
        num_users: users of each size.
        token_budget: tokens of titles per forward pass.
        dtype: data type of the model.
        seed: of the drawn titles and users.
    """

    model: str
    data: Path | None
    sizes: Sequence[int]
    num_users: int
    token_budget: int
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0


def bench_catalogue(
    settings: CatalogueSettings, progress: Progress = no_progress
) -> list[dict[str, object]]:
    """Rank growing parts of a catalogue for some users, each way, in turn.

    Args:
        settings: what to measure.
        progress: receives finished sizes.

    Returns:
        A row per size: tokens beside the prompt's, of the tree and of a list; seconds a user; and
        the largest difference of a log-prob.
    """
    dataset = load_dataset(settings.data or prepared_movielens())
    folder = resolve_model(settings.model)
    encoder = Encoder(load_tokenizer(folder), load_template("history"), dataset.titles)
    rows = sample_rows(dataset.test, settings.num_users, settings.seed)
    prompts = [encoder.prompt(history, []) for history in rows["history"]]
    order = np.random.default_rng(settings.seed).permutation(len(dataset.titles))
    scorer = AdapterScorer(PolicyConfig(model=settings.model, dtype=settings.dtype), folder, {})
    scorer.add("", None)
    pad = encoder.tokenizer.pad_token_id
    table: list[dict[str, object]] = []
    for number, size in enumerate(settings.sizes):
        chosen = order[:size]
        titles = [encoder.response(int(item)) for item in chosen]
        tree = CatalogueTree(titles, settings.token_budget)
        with scorer.using("") as model:
            by_tree, tree_seconds = _timed(prompts, lambda p: score_catalogue(model, p, tree, pad))  # noqa: B023
            by_list, list_seconds = _timed(prompts, lambda p: _listed(model, p, titles, pad))  # noqa: B023
        table.append(
            {
                "titles": len(titles),
                "tokens, tree": tree.num_tokens,
                "tokens, list": tree.num_listed_tokens,
                "tree / list": round(tree.num_tokens / tree.num_listed_tokens, 2),
                "passes": len(tree.parts),
                "s/user, tree": round(tree_seconds, 2),
                "s/user, list": round(list_seconds, 2),
                "list / tree": round(list_seconds / tree_seconds, 2),
                "largest difference": round(float((by_tree - by_list).abs().max()), 6),
            }
        )
        progress(number + 1, len(settings.sizes), f"{len(titles)} titles")
    return table


def _timed(
    prompts: Sequence[Sequence[int]], score: Callable[[Sequence[int]], torch.Tensor]
) -> tuple[torch.Tensor, float]:
    """Scores [users, titles], and seconds a user after a first one that warms up."""
    score(prompts[0])
    started = time.perf_counter()
    scores = torch.stack([score(prompt) for prompt in prompts])
    return scores, (time.perf_counter() - started) / len(prompts)


def _listed(
    model: Any, prompt: Sequence[int], titles: Sequence[Sequence[int]], pad: int
) -> torch.Tensor:
    """The titles in packed rows of some each, behind the prompt once more."""
    parts = [titles[at : at + _TITLES_OF_A_PASS] for at in range(0, len(titles), _TITLES_OF_A_PASS)]
    scores = [score_responses(model, [prompt], [part], pad, 1)[0] for part in parts]
    return torch.cat(scores)
