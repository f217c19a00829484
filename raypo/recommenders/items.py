"""Item vectors: every recommender's input, and what it scores items with.

Deviation: SASRec, GRU4Rec and Caser score by inner product, the last two with a table of output
vectors of their own. The cosine bounds scores, which NAPO's confidence needs, and trained no worse
for SASRec; one table suits catalogues with few interactions per item.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize


class ItemTable(nn.Embedding):
    """Item vectors [num_items, d] by id; an item's score is a cosine with its vector."""

    def reset_parameters(self) -> None:
        """Draw vectors of about unit length."""
        nn.init.normal_(self.weight, std=self.embedding_dim**-0.5)

    def score(self, embeddings: Tensor, items: Tensor) -> Tensor:
        """Cosine [m, k] in [-1, 1] of embeddings [m, d] with items [m, k]; padding scores 0."""
        return _scores(self.weight, embeddings, items)

    def score_all(self, embeddings: Tensor) -> Tensor:
        """Cosine [m, num_items] of embeddings [m, d] with the whole catalogue."""
        return _all_scores(self.weight, embeddings)


class TextItems(nn.Module):
    """Item vectors [num_items, d] from texts: a dense layer over a text encoder's vectors.

    MoRec (arXiv 2303.13835) replaces the table of ids by it, so that items without history have
    vectors too. The texts' vectors are a buffer, saved with the weights: a trained model scores its
    catalogue without the encoder.

    Attributes:
        texts: [num_items, e] vectors of the items' texts.
    """

    texts: Tensor

    def __init__(self, num_items: int, text_size: int, hidden: int) -> None:
        """Make a layer whose texts are still to be set (`set_texts`).

        Args:
            num_items: items in the catalogue.
            text_size: size e of a text's vector.
            hidden: size d of an item's vector.
        """
        super().__init__()
        self.register_buffer("texts", torch.zeros(num_items, text_size))
        self.register_buffer("centre", torch.zeros(text_size))
        self.register_buffer("scale", torch.ones(text_size))
        self.project = nn.Linear(text_size, hidden)

    def set_texts(self, texts: Tensor) -> None:
        """Take the texts' vectors [num_items, e], standardised over the catalogue from then on.

        Vectors of a text encoder lie in a narrow cone: without it all items would be alike.
        """
        self.texts = texts
        self.centre = texts.mean(dim=0)
        self.scale = texts.std(dim=0).clamp_min(1e-6)

    @property
    def weight(self) -> Tensor:
        """Item vectors [num_items, d]."""
        vectors: Tensor = self.project((self.texts - self.centre) / self.scale)
        return vectors

    def forward(self, items: Tensor) -> Tensor:
        """Vectors [..., d] of item ids [...]."""
        return embedding(items, self.weight)

    def score(self, embeddings: Tensor, items: Tensor) -> Tensor:
        """Cosine [m, k] in [-1, 1] of embeddings [m, d] with items [m, k]; padding scores 0."""
        return _scores(self.weight, embeddings, items)

    def score_all(self, embeddings: Tensor) -> Tensor:
        """Cosine [m, num_items] of embeddings [m, d] with the whole catalogue."""
        return _all_scores(self.weight, embeddings)


def _scores(weight: Tensor, embeddings: Tensor, items: Tensor) -> Tensor:
    known = items.clamp_min(0)
    if items.shape[1] > len(weight):
        # Shared sets are longer than the catalogue: each of its items is scored once.
        scores = _all_scores(weight, embeddings).gather(1, known)
    else:
        vectors = normalize(embedding(known, weight), dim=-1)
        scores = torch.einsum("md,mkd->mk", normalize(embeddings, dim=-1), vectors)
    return scores.clamp(-1, 1).masked_fill(items < 0, 0.0)


def _all_scores(weight: Tensor, embeddings: Tensor) -> Tensor:
    return normalize(embeddings, dim=-1) @ normalize(weight, dim=-1).T
