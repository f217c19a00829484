"""GRU4Rec: session-based recommendation with recurrent networks (arXiv 1511.06939).

Shapes: b users, h items of a history, d hidden size, k items scored per user.
"""

from __future__ import annotations

from torch import Tensor, nn

from raypo.recommenders.histories import last_states, most_recent
from raypo.recommenders.items import ItemTable


class GRU4Rec(nn.Module):
    """Gated recurrent units over a history; an item's score is a cosine in [-1, 1].

    Deviation: the paper trains on parallel sessions with a ranking loss (BPR or TOP1) over the
    items of the mini-batch; here it is the softmax over the catalogue that all kinds share, with
    windows as long as the histories that are read. Items enter as vectors, not one-hot, and are
    scored by the cosine of those vectors with a linear map of the state: a GRU's state lies in
    (-1, 1) and starts at 0, which a cosine would read as a direction.
    """

    def __init__(
        self, num_items: int, hidden: int, layers: int, max_length: int, dropout: float
    ) -> None:
        """Make an untrained model.

        Args:
            num_items: items in the catalogue; ids are 0 .. num_items - 1.
            hidden: size d of item vectors and states.
            layers: recurrent layers.
            max_length: items of a history that are read; older ones are left out.
            dropout: probability in training, on item vectors and between layers.
        """
        super().__init__()
        self.max_length = max_length
        self.items = ItemTable(num_items, hidden)
        # torch warns about dropout between layers if there is only one.
        between = dropout if layers > 1 else 0.0
        self.gru = nn.GRU(hidden, hidden, layers, batch_first=True, dropout=between)
        self.out = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, histories: Tensor) -> Tensor:
        """States [b, h, d] at each position of histories [b, h], padded with -1 at the end.

        The state at a position depends on the items up to it alone.
        """
        vectors = self.dropout(self.items(histories.clamp_min(0)))
        states: Tensor = self.out(self.gru(vectors)[0])
        return states

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
