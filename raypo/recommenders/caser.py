"""Caser: convolutional sequence embedding (Tang and Wang, WSDM 2018, arXiv 1809.07426).

Shapes: b users, h items of a history, l = max_length items that the convolutions see at once, d
hidden size, k items scored per user.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool1d, pad

from raypo.recommenders.histories import ending
from raypo.recommenders.items import ItemTable


class Caser(nn.Module):
    """Horizontal and vertical convolutions over the last items; a score is a cosine in [-1, 1].

    The last l items are an image [l, d]. Horizontal filters of each height 1 .. l find patterns of
    consecutive items at any position; vertical filters weight the items by how recent they are.

    Deviation: the paper joins the sequence embedding with an embedding of the user. It is left out,
    because users of the test rows may be new and NAPO compares users by their sequences alone. A
    second, linear layer follows the fully connected one, because a cosine needs both signs and its
    ReLU leaves one; in the paper the output layer restores them. All kinds are trained with the
    softmax over the catalogue, where the paper uses cross-entropy with sampled negatives.
    """

    def __init__(
        self,
        num_items: int,
        hidden: int,
        horizontal_filters: int,
        vertical_filters: int,
        max_length: int,
        dropout: float,
    ) -> None:
        """Make an untrained model.

        Args:
            num_items: items in the catalogue; ids are 0 .. num_items - 1.
            hidden: embedding size d.
            horizontal_filters: filters of each height.
            vertical_filters: weighted sums over the items.
            max_length: items that are read (the paper's L); older ones are left out.
            dropout: probability in training, on item vectors and on the convolutions' output.
        """
        super().__init__()
        self.max_length = max_length
        self.items = ItemTable(num_items, hidden)
        self.dropout = nn.Dropout(dropout)
        self.horizontal = nn.ModuleList(
            nn.Conv1d(hidden, horizontal_filters, height) for height in range(1, max_length + 1)
        )
        self.vertical = nn.Linear(max_length, vertical_filters, bias=False)
        found = max_length * horizontal_filters + vertical_filters * hidden
        self.out = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(found, hidden), nn.ReLU(), nn.Linear(hidden, hidden)
        )

    def forward(self, histories: Tensor) -> Tensor:
        """States [b, h, d] at each position of histories [b, h], padded with -1 at the end.

        The state at a position is computed from the l items up to it.
        """
        return self._convolve(pad(histories, (self.max_length - 1, 0), value=-1))

    def embed(self, histories: Tensor) -> Tensor:
        """Sequence embeddings [b, d]: the state at each history's last item.

        Args:
            histories: [b, h] item ids, oldest first, padded with -1 at the end; longer ones are cut
                to their most recent `max_length` items.
        """
        return self._convolve(ending(histories, self.max_length))[:, 0]

    def score(self, embeddings: Tensor, items: Tensor) -> Tensor:
        """Cosine [m, k] in [-1, 1] of embeddings [m, d] with items [m, k]; padding scores 0."""
        return self.items.score(embeddings, items)

    def score_all(self, embeddings: Tensor) -> Tensor:
        """Cosine [m, num_items] of embeddings [m, d] with the whole catalogue."""
        return self.items.score_all(embeddings)

    def _convolve(self, items: Tensor) -> Tensor:
        """States [b, w - l + 1, d] of all l consecutive items in [b, w]; -1 is a blank."""
        vectors = self.dropout(self.items(items.clamp_min(0)))
        vectors = vectors.masked_fill((items < 0)[..., None], 0.0)
        image = vectors.transpose(1, 2)
        # Overlapping windows share their convolutions: only the maximum is taken per window.
        patterns = [
            max_pool1d(convolution(image).relu(), self.max_length - height, stride=1)
            for height, convolution in enumerate(self.horizontal)
        ]
        sums = self.vertical(vectors.unfold(1, self.max_length, 1)).flatten(2)
        found = torch.cat([*(pattern.transpose(1, 2) for pattern in patterns), sums], dim=-1)
        states: Tensor = self.out(found)
        return states
