"""LoRA adapters: a new one or a trained one around the model, several at once, merged, saved."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from raypo.errors import InputError
from raypo.io.files import file_hash, value_hash
from raypo.policy.fused_lora import use_fused_lora
from raypo.policy.fused_norm import use_fused_norms
from raypo.policy.logps import causal_lm_of
from raypo.policy.model import choose_head_kernel, load_base
from raypo.policy.packing import Markers
from raypo.policy.precision import torch_dtype
from raypo.policy.projector import Projector, load_projector, new_projector

if TYPE_CHECKING:
    import peft
    from transformers import PreTrainedModel

    from raypo.config import PolicyConfig

# Files that make up a tokenizer, whichever of transformers' formats it is saved in.
_TOKENIZER_FILES = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
)


# What PEFT and safetensors raise for files that are cut off, or of another model.
_BROKEN = (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, OSError)


class LoraSettings(Protocol):
    """What an adapter is made from, as `policy.lora` has it."""

    @property
    def rank(self) -> int:
        """Columns of the thin matrices."""

    @property
    def alpha(self) -> float:
        """The adapter's part is scaled by alpha / rank."""

    @property
    def dropout(self) -> float:
        """Of the adapter's inputs."""

    @property
    def target_modules(self) -> str | Sequence[str]:
        """Names of linear layers, or all-linear."""


def load_policy(config: PolicyConfig, model_folder: Path, seed: int) -> peft.PeftModel:
    """The base model with a trainable LoRA adapter: a new one, or the one at `config.adapter`.

    The adapter's weights are float32 whatever the base model's precision.

    Args:
        config: precision, adapter and LoRA settings.
        model_folder: folder of the base model.
        seed: seed of a new adapter's initial weights.

    Raises:
        InputError: there is no adapter at `config.adapter`, or it does not fit the model.
    """
    model = load_base(config, model_folder)
    choose_head_kernel(config, model)
    if config.adapter is not None:
        import peft

        check_adapter(config.adapter)
        try:
            return peft.PeftModel.from_pretrained(
                model, config.adapter, is_trainable=True, autocast_adapter_dtype=True
            )
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{config.adapter}: does not fit {model_folder} ({error})") from error
    return add_adapter(model, config.lora, seed)


def add_adapter(model: PreTrainedModel, lora: LoraSettings, seed: int) -> peft.PeftModel:
    """Wrap a decoder with a new adapter in float32.

    Args:
        model: transformers decoder.
        lora: rank, scale, dropout and target modules.
        seed: seed of the initial weights.
    """
    import peft

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return peft.get_peft_model(model, _peft_config(lora), autocast_adapter_dtype=True)


def check_adapter(folder: Path) -> None:
    """Check that `folder` holds a PEFT adapter in safetensors.

    Raises:
        InputError: a file of the adapter is missing.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).exists():
            raise InputError(f"{folder}: not an adapter folder, {name} is missing")


def adapter_hash(folder: Path) -> str:
    """Hash of an adapter's configuration and weights, its projector's included."""
    names = ["adapter_config.json", "adapter_model.safetensors"]
    names += [name for name in ("projector.safetensors",) if (folder / name).exists()]
    return value_hash([file_hash(folder / name) for name in names])


def make_projector(
    config: PolicyConfig, model: nn.Module, num_features: int, seed: int
) -> Projector | None:
    """The trainable projector of vector hints: a new one, or that of `config.adapter`.

    Args:
        config: names the adapter.
        model: PEFT-wrapped.
        num_features: of a title; 0 is a policy without vectors.
        seed: of a new projector's weights.

    Raises:
        InputError: the adapter's projector takes other features.
    """
    if num_features == 0:
        return None
    found = load_projector(config.adapter) if config.adapter is not None else None
    if found is None:
        return new_projector(causal_lm_of(model), num_features, seed)
    if found.inner.in_features != num_features:
        raise InputError(
            f"{config.adapter}: its projector takes {found.inner.in_features} features of a title, "
            f"policy.hint_features and the recommender give {num_features}"
        )
    return found


def save_adapter(
    model: peft.PeftModel, folder: Path, weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write the adapter in PEFT's own format.

    Args:
        model: the PEFT model.
        folder: created if it does not exist.
        weights: trained parameters by their name in `model.named_parameters()`, where the model's
            own are partitioned or rounded; None takes the model's own.
    """
    state = dict(weights) if weights is not None else None
    with warnings.catch_warnings():
        # PEFT looks for a changed vocabulary on a hub, which may not be reachable.
        warnings.filterwarnings("ignore", message="Could not find a config file")
        model.save_pretrained(folder, state_dict=state, save_embedding_layers=False)


def _peft_config(lora: LoraSettings) -> peft.LoraConfig:
    import peft

    targets = lora.target_modules
    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )


class AdapterScorer:
    """A base model with several adapters in memory, for scoring."""

    def __init__(
        self, config: PolicyConfig, model_folder: Path, adapters: Mapping[str, Path | None]
    ) -> None:
        """Load the base model and every adapter.

        Args:
            config: precision and quantisation.
            model_folder: folder of the base model.
            adapters: name -> adapter folder; None stands for the base model itself.
        """
        self._config, self._model_folder = config, model_folder
        self._labels: dict[str, str | None] = {}  # by name; None is the base model
        self._projectors: dict[str, Projector] = {}
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model: Any = self._base()
        for name, folder in adapters.items():
            self.add(name, folder)

    def add(self, name: str, folder: Path | None) -> None:
        """Load an adapter, or replace the one of this name; None stands for the base model.

        Raises:
            InputError: there is no adapter in the folder, or it does not fit the model. What was
                loaded before stays as it was.
        """
        label = projector = None
        if folder is not None:
            check_adapter(folder)
            label, projector = _label(folder), load_projector(folder)
            self._load(folder, label)
        previous = self._labels.get(name)
        self._labels[name] = label
        self._projectors.pop(name, None)
        if projector is not None:
            self._projectors[name] = projector.requires_grad_(False).to(self._device)
        self._drop(previous)

    def remove(self, name: str) -> None:
        """Drop an adapter, if there is one of this name."""
        self._projectors.pop(name, None)
        self._drop(self._labels.pop(name, None))

    def _drop(self, label: str | None) -> None:
        """Free an adapter's weights, unless a name still stands for them."""
        if label is None or label in self._labels.values():
            return
        with warnings.catch_warnings():
            # It says which adapter is active next, but every use activates its own.
            warnings.filterwarnings("ignore", message="Adapter .* was active which is now deleted")
            self._model.delete_adapter(label)

    def _base(self) -> Any:
        model: Any = load_base(self._config, self._model_folder)
        choose_head_kernel(self._config, model)
        model = model.requires_grad_(False).eval().to(self._device)
        if self._device == "cpu":
            use_fused_norms(model)
        return model

    def _load(self, folder: Path, label: str) -> None:
        import peft

        options: dict[str, Any] = {"autocast_adapter_dtype": False}
        is_wrapped = isinstance(self._model, peft.PeftModel)
        if is_wrapped and label in self._model.peft_config:
            return
        try:
            if is_wrapped:
                self._model.load_adapter(folder, label, **options)
            else:
                self._model = peft.PeftModel.from_pretrained(
                    self._model, folder, adapter_name=label, **options
                )
        except _BROKEN as error:
            if not is_wrapped:
                self._model = self._base()  # layers of the adapter may be in it already
            elif label in self._model.peft_config:
                self._model.delete_adapter(label)
            raise InputError(f"{folder}: does not fit the base model ({error})") from error
        self._model.requires_grad_(False).eval().to(self._device)
        if self._device == "cpu":
            use_fused_lora(self._model)

    def projector(self, name: str) -> Projector | None:
        """The projector of the adapter `name`; None where it has none."""
        return self._projectors.get(name)

    @torch.no_grad()
    def embeddings(self, name: str, prompt: Sequence[int], markers: Markers) -> Tensor | None:
        """Embeddings [T, d] of a prompt for the adapter `name`; None where it has no projector."""
        projector = self._projectors.get(name)
        if projector is None:
            return None
        table = self._model.get_input_embeddings()
        embeddings: Tensor = table(torch.tensor(list(prompt), device=self._model.device)).clone()
        made = projector(torch.from_numpy(markers.features).to(self._model.device))
        embeddings[list(markers.positions)] = made.to(embeddings.dtype)
        return embeddings

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[nn.Module]:
        """Activate the adapter `name` for the length of the block."""
        label = self._labels[name]
        if label is not None:
            self._model.set_adapter(label, inference_mode=True)
            yield self._model
        elif hasattr(self._model, "disable_adapter"):
            with self._model.disable_adapter():
                yield self._model
        else:
            yield self._model


def _label(folder: Path) -> str:
    """A name for PEFT's module keys, by content: a folder may be trained into again."""
    return adapter_hash(folder)[:16]


def merged_model(config: PolicyConfig, model_folder: Path, adapter: Path | None) -> Path:
    """Folder of a model with the adapter's weights added to the base model's, kept in the cache.

    For engines that serve a model without adapters. Merging rounds to the base model's precision.

    Args:
        config: precision of the base model.
        model_folder: folder of the base model, returned unchanged where `adapter` is None.
        adapter: PEFT adapter folder.
    """
    if adapter is None:
        return model_folder
    import peft

    check_adapter(adapter)
    base = [str(model_folder.resolve()), _file_stamps(model_folder)]
    from raypo.config import cache_folder

    key = value_hash([base, adapter_hash(adapter), str(torch_dtype(config)), config.quantisation])
    folder = cache_folder() / "merged" / key[:16]
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        temporary = Path(name) / "model"
        model = peft.PeftModel.from_pretrained(load_base(config, model_folder), adapter)
        model.merge_and_unload().save_pretrained(temporary)
        _copy_tokenizer(model_folder, temporary)
        if not folder.exists():
            temporary.rename(folder)
    return folder


def _file_stamps(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of a folder's files: weights may be too large to hash at every start."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def _copy_tokenizer(source: Path, target: Path) -> None:
    for pattern in _TOKENIZER_FILES:
        for file in source.glob(pattern):
            shutil.copyfile(file, target / file.name)
