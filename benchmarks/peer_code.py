"""Code of two public trainers, fetched into the cache as published and imported from there.

- TRL (https://github.com/huggingface/trl) and what it needs beside raypo's own packages, by pip
  into a folder of its own, which Python searches last. It runs with raypo's torch and transformers.
- S-DPO (https://github.com/chenyuxin1999/S-DPO, arXiv 2406.09215) at a fixed commit, by git. It was
  written for transformers 4.43 and PEFT 0.10. Three things that it calls are named otherwise today;
  `sdpo_trainer` translates these calls and touches nothing that computes.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raypo.config import cache_folder
from raypo.errors import InputError
from raypo.io.files import folder_beside

# TRL and its dependencies that raypo does not have; raypo's own packages are never replaced.
TRL_PACKAGES = (
    "trl==1.16.0",
    "datasets==5.2.0",
    "dill==0.4.1",
    "multiprocess==0.70.19",
    "xxhash==4.1.0",
)
SDPO_URL = "https://github.com/chenyuxin1999/S-DPO"
SDPO_COMMIT = "07befa4141239c1ecd8d13b1136d226315d0227b"


def trl_trainer() -> tuple[type, type]:
    """TRL's `DPOConfig` and `DPOTrainer`; the first call installs them in the cache.

    Raises:
        InputError: pip cannot install them.
    """
    _add_to_path(_installed())
    trl = importlib.import_module("trl")
    return trl.DPOConfig, trl.DPOTrainer


def sdpo_trainer(source: Path | None = None) -> type:
    """S-DPO's `DPOTrainer`; the first call clones it into the cache.

    Its positional arguments reach today's `Trainer` by name, `compute_loss` takes the argument that
    today's `Trainer` adds, and PEFT's old name for preparing 8-bit models, which is imported but
    not called here, is that of the function that replaced it.

    Args:
        source: a git repository on this machine to take it from, in place of GitHub.

    Raises:
        InputError: git cannot get the commit.
    """
    _add_to_path(_installed())  # its trainer imports `datasets`
    _add_to_path(_checked_out(source))
    peft: Any = importlib.import_module("peft")
    transformers: Any = importlib.import_module("transformers")
    if not hasattr(peft, "prepare_model_for_int8_training"):
        peft.prepare_model_for_int8_training = peft.prepare_model_for_kbit_training
    own = transformers.Trainer
    transformers.Trainer = _by_position(own)
    try:
        published = importlib.import_module("trainer.softmax_dpo_trainer").DPOTrainer
    finally:
        transformers.Trainer = own
    return _with_todays_loss(published)


def _by_position(trainer: Any) -> type:
    """A `Trainer` whose positional arguments are those of transformers 4.43."""

    class PositionalTrainer(trainer):  # type: ignore[misc]
        """Passes each positional argument on by its name."""

        def __init__(self, *arguments: Any) -> None:
            names = (
                "model",
                "args",
                "data_collator",
                "train_dataset",
                "eval_dataset",
                "processing_class",  # then called `tokenizer`
                "model_init",
                "compute_metrics",
                "callbacks",
                "optimizers",
                "preprocess_logits_for_metrics",
            )
            super().__init__(**dict(zip(names, arguments, strict=True)))

    return PositionalTrainer


def _with_todays_loss(published: Any) -> type:
    class SdpoTrainer(published):  # type: ignore[misc]
        """S-DPO's trainer, called by today's `training_step`."""

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any
        ) -> Any:
            return super().compute_loss(model, inputs, return_outputs)

    return SdpoTrainer


def _installed() -> Path:
    """The folder of TRL and its dependencies, installed if it is missing."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = hashlib.sha256(" ".join((python, *TRL_PACKAGES)).encode()).hexdigest()[:10]
    folder = cache_folder() / "peers" / f"packages-{key}"
    if not folder.exists():
        with folder_beside(folder) as temporary:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            options = ["--only-binary=:all:", "--target", str(temporary / "made")]
            _run([*command, *options, *TRL_PACKAGES])
            _rename(temporary / "made", folder)
    return folder


def _checked_out(source: Path | None) -> Path:
    """The folder of S-DPO's trainer at `SDPO_COMMIT`, taken out of a repository if missing."""
    folder = cache_folder() / "peers" / f"sdpo-{SDPO_COMMIT[:10]}"
    if not folder.exists():
        with folder_beside(folder) as temporary:
            repository = source or temporary / "repository"
            if source is None:
                # Without its data sets, which are most of it.
                clone = ["git", "clone", "--quiet", "--no-checkout", "--filter=blob:none"]
                _run([*clone, SDPO_URL, str(repository)])
            archive = _run(["git", "-C", str(repository), "archive", SDPO_COMMIT, "trainer"])
            with tarfile.open(fileobj=io.BytesIO(archive)) as files:
                files.extractall(temporary / "made", filter="data")
            _rename(temporary / "made", folder)
    return folder


def _rename(made: Path, folder: Path) -> None:
    with contextlib.suppress(OSError):  # another process was first
        made.rename(folder)


def _run(command: Sequence[str]) -> bytes:
    result = subprocess.run(command, capture_output=True, check=False)
    if result.returncode != 0:
        raise InputError(f"{' '.join(command)}: {result.stderr.decode().strip()}")
    return result.stdout


def _add_to_path(folder: Path) -> None:
    """Let Python import from `folder` what nothing else provides."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()
