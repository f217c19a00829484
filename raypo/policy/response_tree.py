"""Responses as a tree of tokens, in which every common prefix is computed once.

Nodes are the tokens that a response is read after: all but those that end responses. They stand in
preorder, each right before what follows it, so that a node's descendants are the columns up to its
end, and its ancestors are the columns before it whose end lies beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

ROOT = -1  # the prompt's last token, which predicts every response's first


@dataclass(frozen=True)
class ResponseTree:
    """C nodes in preorder.

    Attributes:
        tokens: [C] token ids.
        depths: [C] tokens of the response before the node.
        ends: [C] one past the node's last descendant; node + 1 for a leaf.
        predictions: of each node that predicts, ascending and from `ROOT`: (node, [(response,
            token), ...]) with the index of each response that goes on with the token.
    """

    tokens: list[int]
    depths: list[int]
    ends: list[int]
    predictions: list[tuple[int, list[tuple[int, int]]]]


@dataclass
class _Node:
    children: dict[int, _Node] = field(default_factory=dict)
    predicted: list[tuple[int, int]] = field(default_factory=list)


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of tokens that two sequences begin with alike."""
    length = min(len(one), len(other))
    return next((at for at in range(length) if one[at] != other[at]), length)


def response_tree(responses: Sequence[Sequence[int]]) -> ResponseTree:
    """The tree of responses, none of which is empty; children stand in the order they come in."""
    root = _Node()
    for index, response in enumerate(responses):
        node = root
        for token in response[:-1]:
            node.predicted.append((index, token))
            node = node.children.setdefault(token, _Node())
        node.predicted.append((index, response[-1]))
    tree = ResponseTree([], [], [], [(ROOT, root.predicted)])
    _append(tree, root)
    return tree


def _append(tree: ResponseTree, root: _Node) -> None:
    """Append everything below the root, without recursion: titles may be long."""
    waiting = [(token, node, 0) for token, node in reversed(root.children.items())]
    open_nodes: list[int] = []
    while waiting:
        token, node, depth = waiting.pop()
        number = len(tree.tokens)
        while len(open_nodes) > depth:  # these have no further descendants
            tree.ends[open_nodes.pop()] = number
        open_nodes.append(number)
        tree.tokens.append(token)
        tree.depths.append(depth)
        tree.ends.append(number + 1)
        tree.predictions.append((number, node.predicted))
        waiting += [(next_, child, depth + 1) for next_, child in reversed(node.children.items())]
    for number in open_nodes:
        tree.ends[number] = len(tree.tokens)
