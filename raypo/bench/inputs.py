"""Models and users that the benchmarks run on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raypo.assets import movielens_100k, resolve_model
from raypo.bench.model_configs import SHAPES, TOKENIZER_OF_SHAPES, random_model
from raypo.bench.policy import Users
from raypo.config import LoraConfig, PolicyConfig, PrepareConfig, cache_folder
from raypo.data.dataset import load_dataset
from raypo.data.negatives import TrainingCandidates
from raypo.data.prepare import dataset_key, prepare
from raypo.data.prompts import load_template
from raypo.data.tokenisation import Encoder, load_tokenizer
from raypo.policy.adapters import add_adapter, load_policy


def prepared_movielens() -> Path:
    """MovieLens-100K prepared with the defaults, in the cache."""
    source = movielens_100k()
    config = PrepareConfig(
        interactions=(str(source / "ml-100k.inter"),),
        items=(str(source / "ml-100k.item"),),
        output=source,
        year_field="release_year",
    )
    # By key: what another version of raypo prepared stays where it is.
    folder = cache_folder() / "bench" / f"movielens-100k-{dataset_key(config)[:10]}"
    prepare(config.model_copy(update={"output": folder}))
    return folder


def load_inputs(
    model: str, data: Path | None, num_users: int, negatives: int, dtype: str, rank: int, seed: int
) -> tuple[Any, Users, int, Path]:
    """A policy with a fresh adapter, real users, the padding token and the model folder.

    Args:
        model: folder, built-in name, or a shape of `raypo.bench.model_configs`.
        data: prepared data set; None takes MovieLens-100K.
        num_users: training rows, drawn evenly from the set.
        negatives: per user.
        dtype: of the base model.
        rank: of the adapter.
        seed: of negatives and adapter.

    Raises:
        InputError: model or data set are not what they should be.
    """
    import torch

    folder = resolve_model(TOKENIZER_OF_SHAPES if model in SHAPES else model)
    dataset = load_dataset(data or prepared_movielens())
    config = PolicyConfig(model=model, dtype=dtype, lora=LoraConfig(rank=rank))  # type: ignore[arg-type]
    tokenizer = load_tokenizer(folder)
    encoder = Encoder(tokenizer, load_template(None), dataset.titles)
    count = dataset.info["options"]["candidates"]
    candidates = TrainingCandidates(dataset.train, dataset.num_items, count, seed)
    step = max(1, len(dataset.train) // num_users)
    rows = range(0, step * num_users, step)
    users = Users(
        [encoder.prompt(dataset.train["history"].iat[r], candidates.draw(r, 0)) for r in rows],
        [
            [
                encoder.response(int(item))
                for item in (dataset.train["target"].iat[r], *candidates.negatives(r, 0, negatives))
            ]
            for r in rows
        ],
    )
    if model in SHAPES:
        base = random_model(model, len(tokenizer), getattr(torch, dtype), seed)
        policy = add_adapter(base, config.lora, seed, lora_float32=True)
    else:
        policy = load_policy(config, folder, seed, lora_float32=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return policy.to(device), users, tokenizer.pad_token_id, folder
