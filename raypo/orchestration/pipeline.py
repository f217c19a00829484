"""The pipeline: all stages from interaction logs to the report.

Every stage has a run folder named after a hash of its settings and of all its inputs. A finished
folder is found again by a later run; a changed setting makes a new folder beside the old one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raypo.assets import movielens_100k, resolve_model
from raypo.config import (
    AlignConfig,
    EvaluateConfig,
    PipelineConfig,
    PrepareConfig,
    RecommenderConfig,
    SftConfig,
    cache_folder,
    parse_config,
    with_settings,
)
from raypo.config.base import BaseConfig
from raypo.data.dataset import load_dataset
from raypo.evaluation.report.files import write_files
from raypo.evaluation.report.runs import ReportRun, read_run
from raypo.io.files import file_hash, read_json, value_hash
from raypo.io.progress import Progress, no_progress
from raypo.io.remote import fetch
from raypo.orchestration.evaluate import evaluate
from raypo.orchestration.prepare import prepare
from raypo.orchestration.recommender import train as train_recommender
from raypo.orchestration.train import train
from raypo.training.objective import make_objective


class Observer(Protocol):
    """Receives what a pipeline does, to show it."""

    def running(
        self, stage: str, expected: float | None, seconds_after: float
    ) -> AbstractContextManager[Progress]:
        """Return the Progress of a stage that starts, for as long as it runs.

        Args:
            stage: its name.
            expected: seconds that it is expected to take; None where nothing is known.
            seconds_after: seconds that the stages after it are expected to take.
        """

    def finished(self, stage: str, folder: Path, seconds: float) -> None:
        """Report that a stage has ended after so many seconds, with its results in `folder`."""

    def found(self, stage: str, folder: Path) -> None:
        """Report that a stage was finished by an earlier run, in `folder`."""


class SilentObserver:
    """An Observer that shows nothing."""

    def running(
        self, stage: str, expected: float | None, seconds_after: float
    ) -> AbstractContextManager[Progress]:
        """Return a Progress that does nothing."""
        return nullcontext(no_progress)

    def finished(self, stage: str, folder: Path, seconds: float) -> None:
        """Do nothing."""

    def found(self, stage: str, folder: Path) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Outcome:
    """What a pipeline made.

    Attributes:
        runs: (model's name, its metrics) in the table's order.
        report: the HTML page.
        seconds: wall-clock time of this call.
    """

    runs: list[tuple[str, dict[str, Any]]]
    report: Path
    seconds: float


def run_pipeline(config: PipelineConfig, observer: Observer | None = None) -> Outcome:
    """Run every stage that is not finished yet, then write the report.

    Args:
        config: the pipeline's configuration.
        observer: receives the start and the end of every stage; None shows nothing.

    Raises:
        InputError: a setting or an input of a stage is wrong.
    """
    started = time.monotonic()
    _check_stages(config)
    stages = _Stages(config, observer or SilentObserver())
    data = stages.prepare()
    recommender = stages.recommender(data)
    sft = stages.sft(data)
    aligned = stages.align(data, sft, recommender)
    runs = [
        *stages.evaluate_baselines(data, recommender),
        *stages.evaluate_policies(data, sft, aligned),
    ]
    report = config.output / "report.html"
    write_files(report, config.title, load_dataset(data), runs)
    metrics = [(run.name, run.metrics) for run in runs]
    return Outcome(metrics, report, time.monotonic() - started)


@dataclass(frozen=True)
class _Stage:
    """A stage to run.

    Attributes:
        name: of the stage, at the start of its folder's name.
        model: its configuration.
        given: the settings of its section that were given explicitly.
        filled_in: dotted key -> value of what the pipeline sets, but for `output`.
        inputs: folders of earlier stages.
        action: what runs it.
        done: the file in its folder that exists once it is finished.
    """

    name: str
    model: type[BaseConfig]
    given: Mapping[str, Any]
    filled_in: Mapping[str, Any]
    inputs: tuple[Path, ...]
    action: Callable[[Any, Progress], Any]
    done: str


class _Stages:
    """The stages of one pipeline. Each method returns run folders that it filled or found."""

    def __init__(self, config: PipelineConfig, observer: Observer) -> None:
        self._config = config
        self._observer = observer
        self._model_hash = _model_hash(resolve_model(config.model))
        self._minutes = dict(config.expected_minutes)

    def prepare(self) -> Path:
        files = {}
        if self._config.builtin_data:
            folder = movielens_100k()
            files = {"interactions": folder / "ml-100k.inter", "items": folder / "ml-100k.item"}
        given = _given(self._config.prepare)
        return self._run(
            _Stage("prepare", PrepareConfig, given, files, (), prepare, "dataset.json")
        )

    def recommender(self, data: Path, kind: str | None = None) -> Path:
        """The recommender that alignment uses, or one of another kind for comparison."""
        filled_in: dict[str, Any] = {"data": data, "seed": self._config.seed}
        if kind is not None:
            filled_in["kind"] = kind
        return self._run(
            _Stage(
                kind or "recommender",
                RecommenderConfig,
                _given(self._config.recommender),
                filled_in,
                (data,),
                train_recommender,
                "summary.json",
            )
        )

    def sft(self, data: Path) -> Path:
        given, filled_in = _given(self._config.sft), self._training(data)
        return self._run(_Stage("sft", SftConfig, given, filled_in, (data,), train, "summary.json"))

    def align(self, data: Path, sft: Path, recommender: Path) -> Path:
        filled_in = {
            **self._training(data),
            "policy.adapter": sft / "adapter",
            "recommender": recommender,
        }
        return self._run(
            _Stage(
                "align",
                AlignConfig,
                _given(self._config.align),
                filled_in,
                (data, sft, recommender),
                train,
                "summary.json",
            )
        )

    def evaluate_baselines(self, data: Path, recommender: Path) -> list[ReportRun]:
        """Heuristics and sequential recommenders."""
        baselines: dict[str, dict[str, Any]] = {
            "Random": {"heuristic": "random"},
            "Popularity": {"heuristic": "popularity"},
            "Markov chain": {"heuristic": "markov-chain"},
            "Item-kNN": {"heuristic": "item-knn"},
            _recommender_name(recommender): {"recommender": recommender},
        }
        for kind in self._config.baselines:
            folder = self.recommender(data, kind)
            baselines[_recommender_name(folder)] = {"recommender": folder}
        # The settings that decide about rows and intervals; the others are of language models.
        given = _given(self._config.evaluate, {"max_rows", "split", "num_bootstrap", "seed"})
        runs = []
        for name, what in baselines.items():
            inputs = (data, what["recommender"]) if "recommender" in what else (data,)
            stage = f"evaluate-{name.lower().replace(' ', '-')}"
            filled_in = what | {"data": data}
            folder = self._run(
                _Stage(stage, EvaluateConfig, given, filled_in, inputs, evaluate, "metrics.json")
            )
            runs.append(read_run(name, folder))
        return runs

    def evaluate_policies(self, data: Path, sft: Path, aligned: Path) -> list[ReportRun]:
        """The base model, the SFT policy and the aligned policy."""
        filled_in = {
            "data": data,
            "policy.model": self._config.model,
            "adapters": {"base": None, "sft": sft / "adapter", "aligned": aligned / "adapter"},
        }
        folder = self._run(
            _Stage(
                "evaluate",
                EvaluateConfig,
                _given(self._config.evaluate),
                filled_in,
                (data, sft, aligned),
                evaluate,
                "aligned/metrics.json",
            )
        )
        objective = self._config.align.objective.label.upper()
        return [
            read_run("Base LLM", folder / "base"),
            read_run("SFT", folder / "sft", sft),
            read_run(objective, folder / "aligned", aligned),
        ]

    def _training(self, data: Path) -> dict[str, Any]:
        return {"data": data, "seed": self._config.seed, "policy.model": self._config.model}

    def _run(self, stage: _Stage) -> Path:
        """Run a stage unless its folder shows that it is finished."""
        folder = self._config.output / f"{stage.name}-{self._key(stage)[:10]}"
        fetch(folder)
        if (folder / stage.done).exists():
            self._observer.found(stage.name, folder)
            return folder
        values = with_settings(stage.given, stage.filled_in, source=stage.name)
        config = parse_config(stage.model, values | {"output": folder}, source=stage.name)
        started = time.monotonic()
        minutes = self._minutes.get(stage.name)
        expected = None if minutes is None else 60.0 * minutes
        seconds_after = self._seconds_after(stage.name)
        with self._observer.running(stage.name, expected, seconds_after) as progress:
            stage.action(config, progress)
        self._observer.finished(stage.name, folder, time.monotonic() - started)
        return folder

    def _key(self, stage: _Stage) -> str:
        """Hash of a stage's explicit settings and inputs: a new default changes no folder."""
        values = with_settings(
            _portable(stage.given), _without_folders(stage.filled_in), source=stage.name
        )
        inputs = [folder.name for folder in stage.inputs]
        return value_hash([stage.name, values, inputs, self._model_hash])

    def _seconds_after(self, stage: str) -> float:
        """Expected seconds of all stages after this one."""
        names = list(self._minutes)
        after = names[names.index(stage) + 1 :] if stage in names else []
        return 60.0 * sum(self._minutes[name] for name in after)


def _given(section: BaseConfig, keys: set[str] | None = None) -> dict[str, Any]:
    """Explicitly given settings of a section; with `keys`, those of them."""
    return section.model_dump(exclude_unset=True, include=keys)


def _without_folders(value: Any) -> Any:
    """Paths cut to their last part, which for a stage's folder contains its hash.

    So a pipeline whose output folder or cache was moved finds what it finished.
    """
    if isinstance(value, Path):
        return [value.parent.name, value.name] if value.name == "adapter" else value.name
    if isinstance(value, Mapping):
        return {key: _without_folders(inner) for key, inner in value.items()}
    return value


def _portable(value: Any) -> Any:
    """The user's paths, relative where they are below the working folder or the cache."""
    if isinstance(value, Mapping):
        return {key: _portable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(inner) for inner in value]
    if isinstance(value, str | Path) and Path(value).is_absolute():
        for folder in (Path.cwd(), cache_folder()):
            if Path(value).is_relative_to(folder):
                return Path(value).relative_to(folder).as_posix()
    return value


def _check_stages(config: PipelineConfig) -> None:
    """Validate the configurations of all stages before the first one runs.

    Raises:
        InputError: settings that are right each by itself do not fit together.
    """
    here = Path()
    files = {"interactions": [here], "items": [here]} if config.builtin_data else {}
    folders = {"data": here, "output": here}
    stages: tuple[tuple[str, type[BaseConfig], BaseConfig, dict[str, Any]], ...] = (
        ("prepare", PrepareConfig, config.prepare, files | {"output": here}),
        ("recommender", RecommenderConfig, config.recommender, folders),
        ("sft", SftConfig, config.sft, folders),
        ("align", AlignConfig, config.align, folders | {"policy.adapter": here}),
        ("evaluate", EvaluateConfig, config.evaluate, folders),
    )
    for name, model, section, filled_in in stages:
        values = with_settings(_given(section), filled_in, source=name)
        stage = parse_config(model, values, source=name)
        if isinstance(stage, AlignConfig):
            make_objective(stage, setting="align.objective")


def _model_hash(folder: Path) -> str:
    """Identify a model's weights: content of small files, name and size of large ones."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    small = {file.name: file_hash(file) for file in files if file.stat().st_size < 1 << 24}
    large = {file.name: file.stat().st_size for file in files if file.name not in small}
    return value_hash([small, large])


_RECOMMENDERS = {"sasrec": "SASRec", "gru4rec": "GRU4Rec", "caser": "Caser"}


def _recommender_name(folder: Path) -> str:
    return _RECOMMENDERS[read_json(folder / "model.json").get("kind", "sasrec")]
