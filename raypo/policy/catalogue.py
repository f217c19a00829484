"""Log-probs of a whole catalogue's titles after a prompt: exact, in passes of bounded size.

The prompt is computed once, and its keys and values are kept. The titles follow as trees of tokens
(`response_tree`), in which every common prefix is there once, cut into parts of a token budget.

Shapes: p tokens of the prompt, C of a part, n titles, d hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from raypo.policy.attention import use_packed_attention
from raypo.policy.attention_masks import BehindAncestors
from raypo.policy.decoder_check import problem_with, route_of
from raypo.policy.lm_head import logit_scaling, token_logps
from raypo.policy.logps import causal_lm_of
from raypo.policy.packed import decoder_of
from raypo.policy.packing import Markers
from raypo.policy.projector import Projector, embedded_markers
from raypo.policy.response_tree import common_prefix, response_tree
from raypo.policy.scoring import score_responses

TOKEN_BUDGET = 512
_TITLES_OF_A_PASS = 64  # where a decoder cannot compute trees


@dataclass(frozen=True)
class _Part:
    """Titles of one pass: C nodes of their tree, and what these predict.

    Attributes:
        titles: [m] indices of the titles.
        tokens: [1, C]. depths: [C] tokens of the title before the node. ends: [C] as of the tree.
        sources: [S] rows of the hidden states that predict; 0 is the prompt's last one, and a
            node's are one more than its column.
        source_of, targets, title_of: [N] of each predicted token; titles count within the part.
    """

    titles: list[int]
    tokens: Tensor
    depths: Tensor
    ends: Tensor
    sources: Tensor
    source_of: Tensor
    targets: Tensor
    title_of: Tensor


@dataclass(frozen=True)
class CatalogueTree:
    """A catalogue's titles as parts that are computed one after the other, for any prompt.

    Attributes:
        titles: n lists of token ids, end-of-sequence included, none empty.
        token_budget: tokens of a part, at most, unless one title has more.
    """

    titles: Sequence[Sequence[int]]
    token_budget: int = TOKEN_BUDGET

    @cached_property
    def parts(self) -> list[_Part]:
        """The parts; titles that begin alike are in the same one."""
        return [_part(self.titles, chosen) for chosen in _cut(self.titles, self.token_budget)]

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed for each prompt, beside its own."""
        return sum(part.tokens.numel() for part in self.parts)

    @property
    def num_listed_tokens(self) -> int:
        """Tokens that would be computed if every title stood for itself."""
        return sum(len(title) - 1 for title in self.titles)


def _cut(titles: Sequence[Sequence[int]], budget: int) -> Iterator[list[int]]:
    """Titles of each part; in sorted order, what a title shares it shares with the one before."""
    part: list[int] = []
    size, before = 0, list[int]()
    for index in sorted(range(len(titles)), key=lambda number: list(titles[number])):
        read = list(titles[index])[:-1]  # nothing reads the last token
        new = len(read) - common_prefix(before, read)
        if part and size + new > budget:
            yield part
            part, size, new = [], 0, len(read)
        part.append(index)
        size, before = size + new, read
    if part:
        yield part


def _part(titles: Sequence[Sequence[int]], chosen: list[int]) -> _Part:
    tree = response_tree([titles[index] for index in chosen])
    predicted = [
        (source, token, title)
        for source, (_, own) in enumerate(tree.predictions)
        for title, token in own
    ]
    source_of, targets, title_of = torch.tensor(predicted).T
    return _Part(
        titles=chosen,
        tokens=torch.tensor([tree.tokens], dtype=torch.long),
        depths=torch.tensor(tree.depths, dtype=torch.long),
        ends=torch.tensor(tree.ends, dtype=torch.long),
        sources=torch.tensor([node + 1 for node, _ in tree.predictions]),
        source_of=source_of.contiguous(),
        targets=targets.contiguous(),
        title_of=title_of.contiguous(),
    )


@torch.no_grad()
def score_catalogue(
    model: nn.Module,
    prompt: Sequence[int],
    catalogue: CatalogueTree,
    pad_token_id: int,
    markers: Markers | None = None,
    projector: Projector | None = None,
) -> Tensor:
    """Summed log-probs [n] of every title after a prompt in nats, in float32 on the CPU.

    Args:
        model: decoder in evaluation mode, plain or PEFT-wrapped.
        prompt: token ids.
        catalogue: the titles.
        pad_token_id: for decoders whose attention cannot be replaced, which score titles in
            batches.
        markers: tokens of the prompt whose embeddings `projector` gives.
        projector: on the model's device.

    Raises:
        ValueError: log-probs of this decoder cannot be computed.
    """
    causal_lm = causal_lm_of(model)
    if not keeps_prompts(causal_lm):
        return _score_list(model, prompt, catalogue, pad_token_id, markers, projector)
    use_packed_attention(causal_lm)
    return _score_parts(causal_lm, prompt, catalogue, markers, projector)


def keeps_prompts(causal_lm: Any) -> bool:
    """Whether a decoder's titles can be computed behind a prompt whose keys and values are kept.

    A tiny copy of it shows whether they have the log-probs of plain logits then.

    Raises:
        ValueError: log-probs of this decoder cannot be computed in any way.
    """
    route = route_of(causal_lm)
    is_packed = route.rows == "packed" and route.beyond is None
    return is_packed and not problem_with(causal_lm, _in_parts)


def _in_parts(causal_lm: Any, prompt: list[int], titles: list[list[int]]) -> Tensor:
    """The way that `keeps_prompts` tries, with more than one part."""
    return _score_parts(causal_lm, prompt, CatalogueTree(titles, token_budget=8), None, None)


def _score_parts(
    causal_lm: Any,
    prompt: Sequence[int],
    catalogue: CatalogueTree,
    markers: Markers | None,
    projector: Projector | None,
) -> Tensor:
    device = next(causal_lm.parameters()).device
    cache, last = prompt_pass(causal_lm, prompt, markers, projector)
    scores = torch.empty(len(catalogue.titles))
    for part in catalogue.parts:
        sums = _part_sums(causal_lm, part, cache, len(prompt), last, device)
        scores[part.titles] = sums.cpu()
    return scores


def prompt_pass(
    causal_lm: Any, prompt: Sequence[int], markers: Markers | None, projector: Projector | None
) -> tuple[Any, Tensor]:
    """The prompt's keys and values, and the hidden state [1, d] of its last token.

    Args:
        causal_lm: decoder after `use_packed_attention`.
        prompt: token ids.
        markers: tokens of the prompt whose embeddings `projector` gives.
        projector: on the decoder's device.
    """
    from transformers import DynamicCache

    device = next(causal_lm.parameters()).device
    columns = embeddings = None
    if markers is not None and projector is not None:
        columns = torch.tensor(list(markers.positions), device=device)
        embeddings = projector(torch.from_numpy(markers.features).to(device))
    # Not of the model's configuration: a window's cache would forget what other layers read.
    cache = DynamicCache()
    with embedded_markers(causal_lm, columns, embeddings):
        states = decoder_of(causal_lm)(
            input_ids=torch.tensor([list(prompt)], device=device),
            use_cache=True,
            past_key_values=cache,
        ).last_hidden_state
    return cache, states[0, -1:]


def _part_sums(
    causal_lm: Any, part: _Part, cache: Any, prompt: int, last: Tensor, device: torch.device
) -> Tensor:
    """Summed log-probs [m] of a part's titles; the cache is left as it was."""
    states = last
    if part.tokens.numel():
        depths = part.depths.to(device)
        found = decoder_of(causal_lm)(
            input_ids=part.tokens.to(device),
            # Unused, but its four dimensions keep transformers from making a mask.
            attention_mask=part.tokens.new_zeros(1, 1, 1, 1).to(device),
            position_ids=(prompt + depths)[None],
            use_cache=True,
            past_key_values=cache,
            packed_layout=BehindAncestors.of_tree(prompt, depths, part.ends.to(device)),
        ).last_hidden_state
        cache.crop(prompt)
        states = torch.cat([last, found[0]])
    logps = token_logps(
        causal_lm.get_output_embeddings(),
        logit_scaling(causal_lm.config),
        states[part.sources.to(device)],
        part.source_of.to(device),
        part.targets.to(device),
    )
    sums = torch.zeros(len(part.titles), dtype=torch.float32, device=device)
    return sums.index_add(0, part.title_of.to(device), logps)


def _score_list(
    model: nn.Module,
    prompt: Sequence[int],
    catalogue: CatalogueTree,
    pad_token_id: int,
    markers: Markers | None,
    projector: Projector | None,
) -> Tensor:
    """`score_catalogue` by `score_responses`, which knows other decoders too."""
    pieces = []
    for start in range(0, len(catalogue.titles), _TITLES_OF_A_PASS):
        titles = catalogue.titles[start : start + _TITLES_OF_A_PASS]
        own = None if markers is None or projector is None else [markers]
        scored = score_responses(model, [prompt], [titles], pad_token_id, 1, own, projector)
        pieces.append(scored[0])
    return torch.cat(pieces)
