"""Beam search over a catalogue's titles: k of them, with exact log-probs, and no other text.

The tree of titles is walked level by level behind a prompt whose keys and values are kept. A level
keeps the `width` likeliest beginnings. One that is less likely than the k-th best complete title
cannot lead to a better one, since log-probs only fall, and is left; with an unlimited width the k
titles are those of the highest log-probs.

Shapes: p tokens of the prompt, w of a level, c of all levels so far, d hidden size.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
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


@dataclass
class TitleNode:
    """A beginning of titles.

    Attributes:
        children: by the token that follows.
        titles: indices of the titles that end here.
    """

    children: dict[int, TitleNode] = field(default_factory=dict)
    titles: list[int] = field(default_factory=list)


def title_tree(titles: Sequence[Sequence[int]]) -> TitleNode:
    """The tree of titles, end-of-sequence tokens included."""
    root = TitleNode()
    for index, title in enumerate(titles):
        node = root
        for token in title:
            node = node.children.setdefault(token, TitleNode())
        node.titles.append(index)
    return root


@dataclass(frozen=True)
class _Beginning:
    """A node on the current level: its log-prob, and the columns of its tokens."""

    node: TitleNode
    logp: float
    columns: tuple[int, ...]


@dataclass(frozen=True)
class FoundTitles:
    """The titles that a search found, the likeliest first.

    Attributes:
        titles: indices, at most k.
        logps: summed log-prob of each, in nats.
        num_tokens: that were computed beside the prompt's.
    """

    titles: list[int]
    logps: list[float]
    num_tokens: int


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
    found: list[tuple[float, int]] = []  # a heap of the k best, the worst first
    level, columns = [_Beginning(root, 0.0, ())], 0
    while level:
        after = _extended(level, _logps(causal_lm, states), excluded, found, k)
        level_tokens = _kept(after, width, found, k)
        if not level_tokens:
            break
        level = [
            _Beginning(one.node, one.logp, (*one.columns, columns + place))
            for place, (_, one) in enumerate(level_tokens)
        ]
        tokens = [token for token, _ in level_tokens]
        states = _level_pass(causal_lm, tokens, level, len(prompt), columns, cache)
        columns += len(tokens)
    best = sorted(found, key=lambda one: (-one[0], -one[1]))
    return FoundTitles([-index for _, index in best], [logp for logp, _ in best], columns)


def _extended(
    level: Sequence[_Beginning],
    logps: Tensor,
    excluded: Collection[int],
    found: list[tuple[float, int]],
    k: int,
) -> list[tuple[int, _Beginning]]:
    """Beginnings that are one token longer; titles that are complete go to `found`."""
    longer = []
    for row, one in enumerate(level):
        tokens = list(one.node.children)
        own = logps[row, tokens].tolist()
        for token, logp in zip(tokens, own, strict=True):
            child = one.node.children[token]
            for title in child.titles:
                if title not in excluded:
                    # Of equal log-probs the smaller index is better.
                    heapq.heappush(found, (one.logp + logp, -title))
                    if len(found) > k:
                        heapq.heappop(found)
            if child.children:
                longer.append((token, _Beginning(child, one.logp + logp, one.columns)))
    return longer


def _kept(
    longer: list[tuple[int, _Beginning]],
    width: int | None,
    found: list[tuple[float, int]],
    k: int,
) -> list[tuple[int, _Beginning]]:
    """The likeliest beginnings, without those that cannot lead to one of the k best titles."""
    if len(found) == k:
        longer = [pair for pair in longer if pair[1].logp >= found[0][0]]
    longer.sort(key=lambda pair: -pair[1].logp)
    return longer[:width]


def _logps(causal_lm: Any, states: Tensor) -> Tensor:
    """Log-probs [w, vocabulary] of the token after each state, on the CPU."""
    logits = logit_scaling(causal_lm.config)(causal_lm.get_output_embeddings()(states))
    return logits.log_softmax(dim=-1).cpu()


def _level_pass(
    causal_lm: Any,
    tokens: list[int],
    level: Sequence[_Beginning],
    prompt: int,
    columns: int,
    cache: Any,
) -> Tensor:
    """Hidden states [w, d] of a level's tokens, whose keys and values join the cache."""
    device = next(causal_lm.parameters()).device
    ancestors = torch.zeros(len(level), columns + len(level), dtype=torch.bool)
    for row, one in enumerate(level):
        ancestors[row, list(one.columns)] = True
    depth = len(level[0].columns) - 1
    depths = torch.empty(columns + len(level), dtype=torch.long)
    for one in level:  # of their ancestors too
        depths[list(one.columns)] = torch.arange(depth + 1)
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
