"""Item vectors: every recommender's input, and what it scores items with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize


class ItemTable(nn.Embedding):
    """Item vectors [num_items, d]; an item's score is its vector's cosine with an embedding.

    Deviation: SASRec, GRU4Rec and Caser score by inner product, the last two with a table of output
    vectors of their own. The cosine bounds scores, which NAPO's confidence needs, and trained no
    worse for SASRec; one table suits catalogues with few interactions per item.
    """

    def reset_parameters(self) -> None:
        """Draw vectors of about unit length."""
        nn.init.normal_(self.weight, std=self.embedding_dim**-0.5)

    def score(self, embeddings: Tensor, items: Tensor) -> Tensor:
        """Cosine [m, k] in [-1, 1] of embeddings [m, d] with items [m, k]; padding scores 0."""
        known = items.clamp_min(0)
        if items.shape[1] > len(self.weight):
            # Shared sets are longer than the catalogue: each of its items is scored once.
            scores = self.score_all(embeddings).gather(1, known)
        else:
            vectors = normalize(embedding(known, self.weight), dim=-1)
            scores = torch.einsum("md,mkd->mk", normalize(embeddings, dim=-1), vectors)
        return scores.clamp(-1, 1).masked_fill(items < 0, 0.0)

    def score_all(self, embeddings: Tensor) -> Tensor:
        """Cosine [m, num_items] of embeddings [m, d] with the whole catalogue."""
        return normalize(embeddings, dim=-1) @ normalize(self.weight, dim=-1).T
