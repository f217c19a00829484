"""Models and users that the benchmarks run on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raypo.assets import movielens_100k, resolve_model
from raypo.bench.model_configs import MODEL_CONFIGS, TOKENIZER_MODEL, random_model
from raypo.config import LoraConfig, PolicyConfig, PrepareConfig, cache_folder
from raypo.data.candidates import TrainingCandidates
from raypo.data.dataset import load_dataset
from raypo.data.prepare import dataset_key, prepare
from raypo.data.prompts import load_template
from raypo.data.tokenisation import EncodedUsers, Encoder, load_tokenizer
from raypo.data.training_rows import TrainingRows
from raypo.policy.adapters import add_adapter, load_policy
from raypo.policy.precision import dtype_name, torch_dtype


@dataclass(frozen=True)
class InputSettings:
    """Which model and which users to benchmark on.

    Attributes:
        model: folder, built-in name, or key of `raypo.bench.model_configs.MODEL_CONFIGS`.
        data: prepared data set; None takes MovieLens-100K.
        num_users: training rows, at equal distances in the data set.
        num_negatives: negatives per user: of the candidates in the prompt, or where these are
            fewer, of the catalogue.
        dtype: data type of the base model.
        lora_rank: rank of the adapter.
        seed: seed of negatives and adapter.
    """

    model: str
    data: Path | None
    num_users: int
    num_negatives: int
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    lora_rank: int = 8
    seed: int = 0


@dataclass(frozen=True)
class BenchInputs:
    """What a benchmark runs on.

    Attributes:
        model: policy with a new adapter, on the fastest device.
        users: prompts, and per user the responses, the target's first.
        pad_token_id: the tokenizer's.
        model_folder: folder of the base model, or of its tokenizer where weights are random.
        dtype: of the base model.
    """

    model: Any
    users: EncodedUsers
    pad_token_id: int
    model_folder: Path
    dtype: str


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


def load_inputs(settings: InputSettings) -> BenchInputs:
    """Load the model and encode the users.

    Raises:
        InputError: the model or the data set is missing or invalid.
    """
    import torch

    is_random = settings.model in MODEL_CONFIGS
    folder = resolve_model(TOKENIZER_MODEL if is_random else settings.model)
    tokenizer = load_tokenizer(folder)
    users = _encoded_users(settings, tokenizer)
    config = PolicyConfig(
        model=settings.model, dtype=settings.dtype, lora=LoraConfig(rank=settings.lora_rank)
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if is_random:
        base = random_model(
            settings.model, torch_dtype(config), settings.seed, device, len(tokenizer)
        )
        model = add_adapter(base, config.lora, settings.seed)
    else:
        model = load_policy(config, folder, settings.seed)
    dtype = dtype_name(config, torch.cuda.is_available())
    return BenchInputs(model.to(device), users, tokenizer.pad_token_id, folder, dtype)


def _encoded_users(settings: InputSettings, tokenizer: Any) -> EncodedUsers:
    dataset = load_dataset(settings.data or prepared_movielens())
    dataset.require_rows("train")
    num_candidates = dataset.info["options"]["candidates"]
    train = TrainingRows.of_frame(dataset.train)
    candidates, negatives = (
        TrainingCandidates(train, dataset.num_items, size, settings.seed)
        for size in (num_candidates, max(num_candidates, settings.num_negatives + 1))
    )
    step = max(1, len(dataset.train) // settings.num_users)
    rows = range(0, step * settings.num_users, step)
    encoder = Encoder(tokenizer, load_template(None), dataset.titles)
    return encoder.encode(
        histories=[dataset.train["history"].iat[row] for row in rows],
        candidates=[candidates.draw(row, 0) for row in rows],
        responses=[
            [
                dataset.train["target"].iat[row],
                *negatives.negatives(row, 0, settings.num_negatives),
            ]
            for row in rows
        ],
    )
