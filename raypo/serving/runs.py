"""What can be served: the data set, recommender, adapters and fusion of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from raypo.config.paths import local_path
from raypo.errors import InputError
from raypo.io.files import read_json

BASE = "base"
FUSED = "fused"
_ALIGNED, _SFT, _FUSED = "align-", "sft-", "fuse-"


@dataclass(frozen=True)
class Fusion:
    """A fused model's weights (`raypo fuse`), for standardised scores.

    Attributes:
        adapter: of the language model among them.
        adapter_weight: its weight.
        heuristics: weight by name: popularity, item-knn, markov-chain.
        recommenders: weight by run folder.
    """

    adapter: Path
    adapter_weight: float
    heuristics: dict[str, float] = field(default_factory=dict)
    recommenders: dict[Path, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Served:
    """Models of finished runs.

    Attributes:
        data: folder of the data set.
        model: folder or name of the base model.
        adapters: name -> adapter folder; None is the base model.
        recommender: run folder of what retrieves; None if the runs have none.
        fusion: None if the runs have none.
    """

    data: Path
    model: str
    adapters: dict[str, Path | None]
    recommender: Path | None = None
    fusion: Fusion | None = None

    @property
    def names(self) -> list[str]:
        """Names of the models that requests can ask for, the default one last."""
        return [*self.adapters, *([FUSED] if self.fusion is not None else [])]


def find_served(folders: Sequence[Path]) -> Served:
    """The models of run folders.

    A pipeline's folder gives the base model, its newest finished SFT and alignment, the recommender
    and the fusion; the folder of one training gives its adapter under the folder's name.

    Raises:
        InputError: a folder holds no finished run, or two are of different data sets or base
            models.
    """
    found = [_read_folder(folder) for folder in folders]
    first = found[0]
    result = replace(first, adapters={BASE: None})
    for folder, one in zip(folders, found, strict=True):
        for name, own, other in (
            ("data set", one.data, first.data),
            ("base model", one.model, first.model),
        ):
            if own != other:
                raise InputError(
                    f"{folder}: is of {name} {own}, {folders[0]} of {other}; serve them apart"
                )
        for name, adapter in one.adapters.items():
            unique = name if name not in result.adapters else f"{folder.name}/{name}"
            result.adapters[unique] = adapter
        result = replace(
            result,
            recommender=result.recommender or one.recommender,
            fusion=result.fusion or one.fusion,
        )
    return result


def _read_folder(folder: Path) -> Served:
    if (folder / "adapter").is_dir() and (folder / "config.yaml").exists():
        return _training(folder, folder.name)
    aligned, sft = (_newest(folder, prefix, "summary.json") for prefix in (_ALIGNED, _SFT))
    if aligned is None and sft is None:
        raise InputError(
            f"{folder}: holds no finished run; give the folder of a pipeline, or of one `raypo "
            "sft` or `raypo align`"
        )
    runs = [
        _training(run, name)
        for name, run in (("sft", _parent(aligned, sft)), ("aligned", aligned))
        if run is not None
    ]
    last = runs[-1]
    adapters = {name: path for run in runs for name, path in run.adapters.items()}
    return replace(last, adapters=adapters, fusion=_fusion(folder, adapters))


def _training(run: Path, name: str) -> Served:
    """The adapter of one training."""
    settings = _settings(run)
    policy = settings["policy"]
    if not (run / "adapter" / "adapter_config.json").exists():
        raise InputError(f"{run}: is not finished; it has no adapter yet")
    given = settings.get("recommender") or _sequential(policy.get("hints_recommender"))
    return Served(
        data=local_path(settings["data"]),
        model=str(policy["model"]),
        adapters={name: run / "adapter"},
        recommender=None if given is None else local_path(given),
    )


def _parent(aligned: Path | None, sft: Path | None) -> Path | None:
    """The SFT run that the aligned policy began with, rather than the newest one."""
    if aligned is None:
        return sft
    adapter = _settings(aligned)["policy"].get("adapter")
    run = local_path(adapter).parent if adapter else None
    return run if run is not None and (run / "config.yaml").exists() else None


def _sequential(sources: Any) -> Any:
    """The first source of hints that is a run folder."""
    named = sources if isinstance(sources, list) else []
    return next((one for one in named if "/" in str(one)), None)


def _fusion(folder: Path, adapters: dict[str, Path | None]) -> Fusion | None:
    """The newest fusion of one of these adapters; None if there is none."""
    for run in _all_newest(folder, _FUSED, "fusion.json"):
        weights = read_json(run / "fusion.json")["weights"]
        runs = {name: local_path(of) for name, of in _settings(run)["runs"].items()}
        models = {name: _model_of(evaluated) for name, evaluated in runs.items()}
        language = {name: model for name, model in models.items() if "adapter" in model}
        if len(language) != 1 or set(weights) != set(models):
            continue  # without a language model, with several, or with weights for new items
        ((llm, model),) = language.items()
        adapter = local_path(model["adapter"])
        if adapter not in adapters.values() or not _is_served(llm_run=runs[llm], models=models):
            continue
        kinds = [(model, weights[name]) for name, model in models.items()]
        return Fusion(
            adapter,
            weights[llm],
            {model["heuristic"]: weight for model, weight in kinds if "heuristic" in model},
            {
                local_path(model["recommender"]): weight
                for model, weight in kinds
                if "recommender" in model
            },
        )
    return None


def _is_served(llm_run: Path, models: dict[str, dict[str, str]]) -> bool:
    """Whether the weights are of scores that a server computes.

    It sums log-probs, which weights of log-probs per token do not fit, and draws nothing at random.
    """
    file = llm_run / "evaluated.json"
    per_token = file.exists() and bool(read_json(file).get("length_normalised"))
    return not per_token and all(model.get("heuristic") != "random" for model in models.values())


def _model_of(evaluated: Path) -> dict[str, str]:
    """What an evaluation's folder is of: an adapter, a recommender or a heuristic."""
    for place, name in ((evaluated, None), (evaluated.parent, evaluated.name)):
        if not (place / "config.yaml").exists():
            continue
        settings = _settings(place)
        if name is not None:
            adapter = (settings.get("adapters") or {}).get(name)
            return {} if adapter is None else {"adapter": adapter}
        found = {kind: settings.get(kind) for kind in ("recommender", "heuristic")}
        return {kind: str(value) for kind, value in found.items() if value is not None}
    return {}


def _settings(run: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{run / 'config.yaml'}: cannot be read ({error})") from None
    if not isinstance(settings, dict):
        raise InputError(f"{run / 'config.yaml'}: expected settings, found {settings!r}")
    return settings


def _newest(folder: Path, prefix: str, result: str) -> Path | None:
    return next(iter(_all_newest(folder, prefix, result)), None)


def _all_newest(folder: Path, prefix: str, result: str) -> list[Path]:
    """Finished runs of a stage, the newest first."""
    runs = [run for run in folder.glob(f"{prefix}*") if (run / result).exists()]
    return sorted(runs, key=lambda run: (run / result).stat().st_mtime_ns, reverse=True)
