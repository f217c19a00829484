"""The tree of a catalogue's titles, and how a beam search walks it.

A level of the search has beginnings of titles that are equally long. One that is less likely than
the k-th best complete title cannot lead to a better one, since log-probs only fall, and is left.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field


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
class Beginning:
    """A node on the current level of a search.

    Attributes:
        node: what may follow.
        logp: summed log-prob of its tokens, in nats.
        tokens: from the root to the node.
    """

    node: TitleNode
    logp: float = 0.0
    tokens: tuple[int, ...] = ()


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


class BestTitles:
    """The k likeliest complete titles so far; of equal log-probs the smaller index is better."""

    def __init__(self, k: int, excluded: Collection[int] = ()) -> None:
        """`excluded` are titles that are not found."""
        self._k, self._excluded = k, excluded
        self._heap: list[tuple[float, int]] = []  # the worst first

    def add(self, titles: Sequence[int], logp: float) -> None:
        """Titles that end at a node."""
        for title in titles:
            if title not in self._excluded:
                heapq.heappush(self._heap, (logp, -title))
                if len(self._heap) > self._k:
                    heapq.heappop(self._heap)

    def may_lead(self, logp: float) -> bool:
        """Whether a beginning of this log-prob can still lead to one of the k best."""
        return len(self._heap) < self._k or logp >= self._heap[0][0]

    def found(self, num_tokens: int) -> FoundTitles:
        """The titles, after a search that computed so many tokens."""
        best = sorted(self._heap, key=lambda one: (-one[0], -one[1]))
        return FoundTitles([-index for _, index in best], [logp for logp, _ in best], num_tokens)


def next_level(
    level: Sequence[Beginning],
    logps: Sequence[Sequence[float]],
    width: int | None,
    best: BestTitles,
) -> list[tuple[int, Beginning]]:
    """Beginnings that are one token longer, the likeliest first, with what each extends.

    Args:
        level: where the search stands.
        logps: of every beginning's children, in their order.
        width: beginnings that a level keeps; None keeps all, which makes the result exact.
        best: receives the titles that are complete.

    Returns:
        index into `level` and beginning, `width` at most.
    """
    longer = []
    for parent, (one, own) in enumerate(zip(level, logps, strict=True)):
        for (token, child), logp in zip(one.node.children.items(), own, strict=True):
            best.add(child.titles, one.logp + logp)
            if child.children:
                tokens = (*one.tokens, token)
                longer.append((parent, Beginning(child, one.logp + logp, tokens)))
    kept = [pair for pair in longer if best.may_lead(pair[1].logp)]
    kept.sort(key=lambda pair: -pair[1].logp)
    return kept[:width]
