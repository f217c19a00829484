"""`raypo fuse`: a conditional logit over evaluated models, and what language models add to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raypo.config import EvaluateConfig, load_config
from raypo.config.fusion import FuseConfig
from raypo.data.conditional_logit import (
    fit_conditional_logit,
    fused_scores,
    standardised,
)
from raypo.data.dataset import Dataset, load_dataset
from raypo.errors import InputError
from raypo.evaluation.fusion.added import (
    Rows,
    by_slice,
    compare_scores,
    likelihood_gain,
    row_slices,
    sentence,
)
from raypo.evaluation.intervals import Resampling
from raypo.evaluation.metrics import hit_at, target_ranks
from raypo.evaluation.predictions import empty_predictions, read_predictions, write_predictions
from raypo.evaluation.ranking import rank_candidates
from raypo.evaluation.summary import MetricOptions, summarise
from raypo.io.files import read_json, write_json
from raypo.io.progress import Progress, no_progress
from raypo.io.remote import fetch, synced
from raypo.io.run_folder import check_run_folder, open_run
from raypo.orchestration.evaluate import evaluate


@dataclass(frozen=True)
class _Run:
    """An evaluated model.

    Attributes:
        folder: with `metrics.json` and `predictions.parquet`.
        config: of the evaluation that filled it.
        adapter: its name among the evaluation's adapters; None for a model evaluated alone.
    """

    folder: Path
    config: EvaluateConfig
    adapter: str | None

    @property
    def is_language_model(self) -> bool:
        return self.config.recommender is None and self.config.heuristic is None

    @property
    def is_length_normalised(self) -> bool:
        file = self.folder / "evaluated.json"
        return bool(file.exists() and read_json(file).get("length_normalised"))


@synced
def fuse(config: FuseConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """Fit weights on validation rows, apply them to the runs' rows, and write the fused model.

    The runs' models are evaluated on validation rows too, into `validation/` of the output.

    Returns:
        The content of `fusion.json`.

    Raises:
        InputError: a run is no evaluation by likelihood, or the runs are of different rows.
    """
    file = config.output / "fusion.json"
    if check_run_folder(config.output, config) and file.exists():
        return dict(read_json(file))
    dataset = load_dataset(config.data)
    dataset.require_rows("validation")
    runs = {name: _read_run(folder) for name, folder in config.runs.items()}
    frames = {name: _predictions(run.folder) for name, run in runs.items()}
    _check_same_rows(runs, frames)
    open_run(config.output, config)
    new = None
    if dataset.cold is not None:
        new = dataset.items["popularity"].to_numpy() == 0
    test = _rows(runs, frames, new)
    validation = _rows(runs, _validate(config, runs, progress), new)
    frame = next(iter(frames.values()))
    fusion = _Fusion(config, dataset, runs, validation, test, frame)
    predictions = empty_predictions(frame)
    predictions["logps"] = list(fusion.scores(list(runs)))
    options = MetricOptions(fusion.resampling, calibrated=True)
    popularity = dataset.items["popularity"].to_numpy()
    result = fusion.result()
    first = next(iter(runs.values())).folder / "evaluated.json"
    write_predictions(config.output, predictions)
    if first.exists():
        kept = ("dataset", "rows", "candidates")
        written = {key: value for key, value in read_json(first).items() if key in kept}
        write_json(config.output / "evaluated.json", written | {"length_normalised": False})
    write_json(config.output / "metrics.json", summarise(predictions, popularity, options))
    write_json(file, result)
    return result


@dataclass(frozen=True)
class _Fusion:
    """Models on validation and test rows."""

    config: FuseConfig
    dataset: Dataset
    runs: dict[str, _Run]
    validation: Rows
    test: Rows
    frame: pd.DataFrame

    @property
    def resampling(self) -> Resampling:
        return Resampling(self.config.num_bootstrap, self.config.seed)

    def scores(self, names: list[str]) -> np.ndarray:
        """Fused scores [n, c] of the test rows."""
        fit = fit_conditional_logit(
            self.validation.features(names), self.validation.targets, self.validation.users
        )
        return fused_scores(self.test.features(names), fit.weights)

    def result(self) -> dict[str, Any]:
        validation = self.validation
        fit = fit_conditional_logit(
            validation.features(list(self.runs)), validation.targets, validation.users
        )
        names = validation.feature_names(list(self.runs))
        return {
            "weights": dict(zip(names, fit.weights.tolist(), strict=True)),
            "standard_errors": dict(zip(names, fit.errors.tolist(), strict=True)),
            "validation_rows": len(validation.targets),
            **self._added(),
        }

    def _added(self) -> dict[str, Any]:
        """What the language models add; nothing where there is only one kind of model."""
        language = [name for name, run in self.runs.items() if run.is_language_model]
        others = [name for name in self.runs if name not in language]
        if not language or not others:
            reason = "no run is of a language model" if others else "all runs are language models"
            return {
                "added": None,
                "sentence": f"What a language model adds is not known: {reason}.",
            }
        own, without = self.scores(list(self.runs)), self.scores(others)
        compared = compare_scores(own, without, self.test, self.resampling)
        best = max(others, key=lambda name: self._hit_ratio(self.test.scores[name]))
        popularity = self.dataset.items["popularity"].to_numpy()
        lengths = np.array([len(history) for history in self.frame["history"]])
        slices = row_slices(self.frame["target"].to_numpy(), popularity, lengths)
        added = {
            **compared["HitRatio@1"],
            "against": f"fused without {' and '.join(language)}",
            "without": others,
            "NDCG@5": compared["NDCG@5"],
            "HitRatio@1": compared["HitRatio@1"],
            "against_best_recommender": {
                "name": best,
                **compare_scores(own, self.test.scores[best], self.test, self.resampling),
            },
            "validation_likelihood": likelihood_gain(self.validation, list(self.runs), others),
            "slices": by_slice(own, without, self.test, slices, self.resampling),
        }
        return {"added": added, "sentence": sentence(" and ".join(language), added)}

    def _hit_ratio(self, scores: np.ndarray) -> float:
        return float(hit_at(1, *target_ranks(scores, self.test.targets)).mean())


def _read_run(folder: Path) -> _Run:
    """The evaluation that filled a folder."""
    if not (folder / "config.yaml").exists():
        fetch(folder.parent)  # an adapter's folder is inside that of its evaluation
    for place, adapter in ((folder, None), (folder.parent, folder.name)):
        if (place / "config.yaml").exists() and (folder / "metrics.json").exists():
            config = load_config(EvaluateConfig, place / "config.yaml")
            if adapter is None or adapter in (config.adapters or {}):
                return _Run(folder, config, adapter)
    raise InputError(
        f"{folder}: no evaluated model there; give folders of `raypo evaluate`, one model each"
    )


def _predictions(folder: Path) -> pd.DataFrame:
    predictions = read_predictions(folder)
    if predictions["logps"].isna().any():
        raise InputError(
            f"{folder}: has no scores of candidates; evaluate with answers=[likelihood]"
        )
    return predictions


def _check_same_rows(runs: dict[str, _Run], frames: dict[str, pd.DataFrame]) -> None:
    (name, first), *rest = frames.items()
    for run in runs.values():
        if run.config.split != "test":
            raise InputError(
                f"{run.folder}: was evaluated on {run.config.split} rows; fuse takes test rows and "
                "evaluates on validation rows itself"
            )
    for other, frame in rest:
        same = np.array_equal(first["row"], frame["row"]) and all(
            np.array_equal(a, b)
            for a, b in zip(first["candidates"], frame["candidates"], strict=True)
        )
        if not same:
            raise InputError(
                f"runs: {name!r} ({len(first)} rows) and {other!r} ({len(frame)} rows) were "
                "evaluated on different rows or candidates; evaluate both with the same max_rows "
                "and seed"
            )


def _rows(runs: dict[str, _Run], frames: dict[str, pd.DataFrame], new: np.ndarray | None) -> Rows:
    """The runs' rows; `new` [items] are those whose scores have weights of their own."""
    rankings = {
        name: rank_candidates(frame, runs[name].is_length_normalised)
        for name, frame in frames.items()
    }
    first = next(iter(rankings.values()))
    frame = next(iter(frames.values()))
    scores = {name: standardised(one.scores) for name, one in rankings.items()}
    candidates = np.stack(frame["candidates"].to_list())
    is_new = None if new is None else new[candidates]
    return Rows(scores, first.targets, frame["user_id"].to_numpy(), is_new)


def _validate(
    config: FuseConfig, runs: dict[str, _Run], progress: Progress
) -> dict[str, pd.DataFrame]:
    """Predictions of every run's model on validation rows; adapters of one evaluation together."""
    folders: dict[str, Path] = {}
    groups: dict[str, list[str]] = {}
    for name, run in runs.items():
        place = run.folder if run.adapter is None else run.folder.parent
        groups.setdefault(str(place), []).append(name)
    for number, names in enumerate(groups.values()):
        first = runs[names[0]]
        output = config.output / "validation" / str(number)
        changes: dict[str, Any] = {
            "data": config.data,
            "output": output,
            "split": "validation",
            "answers": ("likelihood",),
            "max_rows": config.validation_rows,
            "num_permutations": 0,
            "num_bootstrap": 1,
            "seed": config.seed,
        }
        if first.adapter is not None:
            assert first.config.adapters is not None
            chosen = [runs[name].adapter or "" for name in names]
            changes["adapters"] = {name: first.config.adapters[name] for name in chosen}
        evaluate(first.config.model_copy(update=changes), progress)
        for name in names:
            adapter = runs[name].adapter
            folders[name] = output if adapter is None else output / adapter
    return {name: read_predictions(folder) for name, folder in folders.items()}
