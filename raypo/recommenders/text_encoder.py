"""A text encoder over the texts of all items, frozen or trained with the recommender.

Shapes: e size of a text's vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raypo.io.environment import set_deepspeed_accelerator

_TOKENS = 4096  # of a batch of texts, padding included
_LONGEST_TEXT = 128  # tokens; longer texts are cut


class TextEncoder:
    """Vectors of all items' texts, and the gradient of the encoder's weights.

    A softmax over the catalogue needs every item's vector in every step. Their graph is not kept:
    `vectors` computes them without one, and `backward` computes them again, batch by batch, with
    the gradient that arrived at them. The encoder's own dropout stays off, so both are the same.

    Attributes:
        model: the transformer.
        size: e.
    """

    def __init__(self, folder: Path, texts: Sequence[str]) -> None:
        """Load the encoder, and tokenise the texts.

        Args:
            folder: of a transformers model with safetensors and a tokenizer.
            texts: of item i at position i.
        """
        set_deepspeed_accelerator()
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()  # heads of the folder that are not used
        loaded: Any = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        self.model: nn.Module = loaded.eval()
        self.size = int(loaded.config.hidden_size)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        encoded = self._tokenizer(list(texts), truncation=True, max_length=_LONGEST_TEXT).input_ids
        empty = [self._tokenizer.eos_token_id or self._tokenizer.sep_token_id or 0]
        self._batches = list(_batches([list(ids) or empty for ids in encoded]))
        self._num_texts = len(encoded)

    @torch.no_grad()
    def vectors(self) -> Tensor:
        """Vectors [num_items, e]: the mean of the last hidden states of each text's tokens."""
        vectors = torch.empty(self._num_texts, self.size)
        for items, ids, mask in self._batches:
            vectors[items] = self._encode(ids, mask)
        return vectors

    def backward(self, gradient: Tensor) -> None:
        """Add the gradient of the encoder's weights, given that of the vectors [num_items, e]."""
        for items, ids, mask in self._batches:
            torch.autograd.backward(self._encode(ids, mask), gradient[items])

    def save(self, folder: Path) -> None:
        """Write the encoder and its tokenizer as a transformers folder."""
        model: Any = self.model
        model.save_pretrained(folder, safe_serialization=True)
        self._tokenizer.save_pretrained(folder)

    def _encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask[..., None].to(hidden.dtype)
        mean: Tensor = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        return mean


def _batches(texts: list[list[int]]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Items [b], token ids [b, t] and mask [b, t], texts of about the same length together."""
    order = sorted(range(len(texts)), key=lambda item: len(texts[item]))
    start = 0
    while start < len(order):
        count = 1
        while start + count < len(order):
            if (count + 1) * len(texts[order[start + count]]) > _TOKENS:
                break
            count += 1
        items = order[start : start + count]
        width = len(texts[items[-1]])
        ids = torch.zeros(count, width, dtype=torch.long)
        mask = torch.zeros(count, width, dtype=torch.long)
        for row, item in enumerate(items):
            ids[row, : len(texts[item])] = torch.tensor(texts[item])
            mask[row, : len(texts[item])] = 1
        yield torch.tensor(items), ids, mask
        start += count
