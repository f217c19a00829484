"""The projector of vector hints: features of a title to an embedding of the language model.

LLaRA (arXiv 2312.02445, section 3.2): Linear, GELU, Linear. It lives beside the PEFT adapter, as
`projector.safetensors` with `projector.json`.

Shapes: v markers in a batch, f features of a title, d hidden size of the language model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raypo.errors import InputError
from raypo.io.files import atomic_path, read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WEIGHTS, _SHAPE = "projector.safetensors", "projector.json"


class Projector(nn.Module):
    """Features [v, f] to embeddings [v, d], in float32 like the adapter's weights."""

    def __init__(self, num_features: int, hidden: int) -> None:
        """Make an untrained projector.

        Args:
            num_features: of a title.
            hidden: size of the language model's embeddings.
        """
        super().__init__()
        self.inner = nn.Linear(num_features, hidden)
        self.outer = nn.Linear(hidden, hidden)

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings [v, d] of features [v, f]."""
        embeddings: Tensor = self.outer(nn.functional.gelu(self.inner(features)))
        return embeddings


def new_projector(causal_lm: PreTrainedModel, num_features: int, seed: int) -> Projector:
    """An untrained projector whose embeddings are as large as those of the model's tokens.

    Where the table of embeddings is partitioned over ranks, call it while the table is gathered.

    Args:
        causal_lm: the language model.
        num_features: of a title.
        seed: of the weights.
    """
    config = causal_lm.config.get_text_config()
    size = float(causal_lm.get_input_embeddings().weight.detach().float().std())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        projector = Projector(num_features, config.hidden_size)
        with torch.no_grad():
            made = projector(torch.randn(256, num_features))
            projector.outer.weight *= size / float(made.std())
            projector.outer.bias.zero_()
    return projector


def save_projector(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write `projector.safetensors` and `projector.json` into an adapter's folder.

    Args:
        folder: of the adapter.
        weights: by name in the module.
    """
    hidden, num_features = weights["inner.weight"].shape
    with atomic_path(folder / _WEIGHTS) as temporary:
        save_file({name: value.contiguous() for name, value in weights.items()}, temporary)
    write_json(folder / _SHAPE, {"num_features": num_features, "hidden": hidden})


def load_projector(adapter: Path) -> Projector | None:
    """The projector in an adapter's folder, in float32; None where there is none.

    Raises:
        InputError: its files do not fit together.
    """
    if not (adapter / _WEIGHTS).exists():
        return None
    shape = read_json(adapter / _SHAPE)
    try:
        projector = Projector(int(shape["num_features"]), int(shape["hidden"]))
        projector.load_state_dict(load_file(adapter / _WEIGHTS))
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"{adapter / _WEIGHTS}: does not fit {_SHAPE} ({error})") from None
    return projector


@contextlib.contextmanager
def embedded_markers(
    causal_lm: PreTrainedModel, columns: Tensor | None, embeddings: Tensor | None
) -> Iterator[None]:
    """Give tokens other embeddings than the model's table for the length of the block.

    Args:
        causal_lm: whose table of embeddings is called in the block.
        columns: [v] flat positions (row * T + column) in the rows of token ids; None changes none.
        embeddings: [v, d].
    """
    if columns is None or embeddings is None:
        yield
        return

    def put(_: nn.Module, __: object, output: Tensor) -> Tensor:
        flat = output.flatten(0, 1)
        return flat.index_copy(0, columns, embeddings.to(flat.dtype)).view_as(output)

    handle = causal_lm.get_input_embeddings().register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()
