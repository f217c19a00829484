"""SASRec: self-attentive sequential recommendation (arXiv 1808.09781).

Shapes: b users, h items of a history, d hidden size, k items scored per user.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from raypo.recommenders.histories import last_states, most_recent
from raypo.recommenders.items import ItemTable, TextItems


class SASRec(nn.Module):
    """Causal self-attention over a history; an item's score is a cosine in [-1, 1]."""

    def __init__(
        self,
        items: ItemTable | TextItems,
        hidden: int,
        layers: int,
        heads: int,
        max_length: int,
        dropout: float,
    ) -> None:
        """Make an untrained model.

        Args:
            items: vectors of the items, by id or from their texts (MoRec).
            hidden: embedding size d.
            layers: attention blocks.
            heads: attention heads per block.
            max_length: items of a history that are read; older ones are left out.
            dropout: probability in training.
        """
        super().__init__()
        self.max_length = max_length
        self.items = items
        self.positions = nn.Embedding(max_length, hidden)
        self.blocks = nn.ModuleList(_Block(hidden, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        # Item vectors are drawn again at the end, so that a seed gives the same weights as ever.
        if isinstance(items, ItemTable):
            nn.init.normal_(items.weight, std=hidden**-0.5)
        nn.init.normal_(self.positions.weight, std=hidden**-0.5)

    def forward(self, histories: Tensor) -> Tensor:
        """Hidden states [b, h, d] at each position of histories [b, h], padded with -1 at the end.

        The state at a position depends on the items up to it alone.
        """
        positions = torch.arange(histories.shape[1], device=histories.device)
        states = self.items(histories.clamp_min(0)) + self.positions(positions)
        states = self.dropout(states)
        for block in self.blocks:
            states = block(states)
        normed: Tensor = self.norm(states)
        return normed

    def embed(self, histories: Tensor) -> Tensor:
        """Sequence embeddings [b, d]: the state at each history's last item.

        Args:
            histories: [b, h] item ids, oldest first, padded with -1 at the end; longer ones are cut
                to their most recent `max_length` items.
        """
        recent = most_recent(histories, self.max_length)
        return last_states(self(recent), recent)

    def score(self, embeddings: Tensor, items: Tensor) -> Tensor:
        """Cosine [m, k] in [-1, 1] of embeddings [m, d] with items [m, k]; padding scores 0."""
        return self.items.score(embeddings, items)

    def score_all(self, embeddings: Tensor) -> Tensor:
        """Cosine [m, num_items] of embeddings [m, d] with the whole catalogue."""
        return self.items.score_all(embeddings)


class _Block(nn.Module):
    """Pre-norm causal self-attention and a two-layer feed-forward net."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.feed_norm = nn.LayerNorm(hidden)
        self.feed = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden)
        )
        self.residual = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        b, h, d = states.shape
        qkv = self.qkv(self.attention_norm(states)).view(b, h, 3, self.heads, d // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        rate = self.dropout if self.training else 0.0
        # Padding follows all items, so the causal mask alone hides it.
        mixed = scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=rate)
        states = states + self.residual(self.out(mixed.transpose(1, 2).reshape(b, h, d)))
        fed: Tensor = states + self.residual(self.feed(self.feed_norm(states)))
        return fed
