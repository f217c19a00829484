"""The encoder of a run: its tokenizer, template and how long a prompt may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from raypo.config import InputError, PolicyConfig
from raypo.data.prompts import load_template
from raypo.data.tokenisation import Encoder
from raypo.io.files import read_json
from raypo.policy.model import load_tokenizer

# What different architectures call the positions that they know.
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len")


def make_encoder(
    policy: PolicyConfig, model_folder: Path, titles: Sequence[str], context: int | None = None
) -> Encoder:
    """The encoder of a policy.

    Args:
        policy: template and `max_prompt_tokens`.
        model_folder: the base model.
        titles: of the catalogue.
        context: tokens of prompt and response together; None is the model's own.

    Raises:
        InputError: a title does not fit the context.
    """
    encoder = Encoder(load_tokenizer(model_folder), load_template(policy.prompt), titles)
    limit = policy.max_prompt_tokens
    context = context or _context(model_folder)
    if context is not None:
        room = context - encoder.longest_response()
        if room < 1:
            raise InputError(f"the longest title does not fit {context} tokens of context")
        limit = room if limit is None else min(limit, room)
    return replace(encoder, max_prompt_tokens=limit)


def _context(model_folder: Path) -> int | None:
    values = read_json(model_folder / "config.json")
    return next((int(values[key]) for key in _CONTEXT_KEYS if key in values), None)
