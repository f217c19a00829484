"""Beam search over a catalogue's titles: k of them, with exact log-probs, and no other text.

The tree of titles is walked level by level behind a prompt whose keys and values are kept. With an
unlimited width the k titles are those of the highest log-probs.

Shapes: p tokens of the prompt, w of a level, c of all levels so far, d hidden size.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raypo.policy.attention import use_packed_attention
from raypo.policy.attention_masks import BehindAncestors
from raypo.policy.catalogue import keeps_prompts, prompt_pass
from raypo.policy.decoder_check import problem_with
from raypo.policy.lm_head import logit_scaling
from raypo.policy.logps import causal_lm_of
from raypo.policy.packed import decoder_of
from raypo.policy.packing import Markers
from raypo.policy.projector import Projector
from raypo.policy.title_tree import (
    Beginning,
    BestTitles,
    FoundTitles,
    TitleNode,
    next_level,
    title_tree,
)


@torch.no_grad()
def search_titles(
    model: nn.Module,
    prompt: Sequence[int],
    root: TitleNode,
    k: int,
    width: int | None = None,
    excluded: Collection[int] = (),
    markers: Markers | None = None,
    projector: Projector | None = None,
) -> FoundTitles:
    """The k likeliest titles after a prompt that a beam search finds.

    Args:
        model: decoder in evaluation mode, plain or PEFT-wrapped.
        prompt: token ids.
        root: of `title_tree`.
        k: titles to find.
        width: beginnings that a level keeps; None keeps all, which makes the result exact.
        excluded: titles that are not found.
        markers: tokens of the prompt whose embeddings `projector` gives.
        projector: on the model's device.

    Raises:
        ValueError: the decoder's attention cannot be replaced.
    """
    causal_lm = causal_lm_of(model)
    if not keeps_prompts(causal_lm) or problem_with(causal_lm, _all_of):
        raise ValueError(
            f"{causal_lm.config.model_type}: a beam search is not right for this decoder, which "
            "has no prompts that are kept; rank the whole catalogue"
        )
    use_packed_attention(causal_lm)
    return _search(causal_lm, prompt, root, k, width, excluded, markers, projector)


def _all_of(causal_lm: Any, prompt: list[int], titles: list[list[int]]) -> Tensor:
    """The way that is tried on a tiny copy: every title is found."""
    found = _search(causal_lm, prompt, title_tree(titles), len(titles), None, (), None, None)
    return torch.tensor(found.logps)[torch.tensor(found.titles).argsort()]


def _search(
    causal_lm: Any,
    prompt: Sequence[int],
    root: TitleNode,
    k: int,
    width: int | None,
    excluded: Collection[int],
    markers: Markers | None,
    projector: Projector | None,
) -> FoundTitles:
    cache, states = prompt_pass(causal_lm, prompt, markers, projector)
    best = BestTitles(k, excluded)
    level, columns = [Beginning(root)], 0
    paths: list[tuple[int, ...]] = [()]  # columns of each beginning's tokens
    while longer := next_level(level, _children_logps(causal_lm, states, level), width, best):
        level = [one for _, one in longer]
        paths = [(*paths[parent], columns + place) for place, (parent, _) in enumerate(longer)]
        tokens = [one.tokens[-1] for one in level]
        states = _level_pass(causal_lm, tokens, paths, len(prompt), columns, cache)
        columns += len(tokens)
    return best.found(columns)


def _children_logps(
    causal_lm: Any, states: Tensor, level: Sequence[Beginning]
) -> list[list[float]]:
    """Log-probs of each beginning's children, from the states [w, d] of their last tokens."""
    logits = logit_scaling(causal_lm.config)(causal_lm.get_output_embeddings()(states))
    logps = logits.log_softmax(dim=-1).cpu()
    return [logps[row, list(one.node.children)].tolist() for row, one in enumerate(level)]


def _level_pass(
    causal_lm: Any,
    tokens: list[int],
    paths: Sequence[tuple[int, ...]],
    prompt: int,
    columns: int,
    cache: Any,
) -> Tensor:
    """Hidden states [w, d] of a level's tokens, whose keys and values join the cache."""
    device = next(causal_lm.parameters()).device
    ancestors = torch.zeros(len(paths), columns + len(paths), dtype=torch.bool)
    for row, path in enumerate(paths):
        ancestors[row, list(path)] = True
    depth = len(paths[0]) - 1
    depths = torch.empty(columns + len(paths), dtype=torch.long)
    for path in paths:  # of their ancestors too
        depths[list(path)] = torch.arange(depth + 1)
    depths = depths.where(ancestors.any(dim=0), 0)  # nothing on this level reads the others
    ids = torch.tensor([tokens], device=device)
    states: Tensor = decoder_of(causal_lm)(
        input_ids=ids,
        # Unused, but its four dimensions keep transformers from making a mask.
        attention_mask=ids.new_zeros(1, 1, 1, 1),
        position_ids=torch.full_like(ids, prompt + depth),
        use_cache=True,
        past_key_values=cache,
        packed_layout=BehindAncestors(prompt, depths.to(device), ancestors.to(device)),
    ).last_hidden_state[0]
    return states
