"""The whole way, stage after stage; a second run finds finished stages and goes on behind them.

Every stage has a run folder named after a hash of its configuration and of all that goes into it,
so that a changed setting makes a new folder beside the old one and nothing is overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from raypo.assets import movielens_100k, resolve_model
from raypo.cli.progress import clock, console, progress_bar
from raypo.config import (
    AlignConfig,
    EvaluateConfig,
    InputError,
    ObjectiveConfig,
    PipelineConfig,
    PrepareConfig,
    RecommenderConfig,
    SftConfig,
    parse_config,
)
from raypo.config.paths import local_path, uri
from raypo.data.dataset import Dataset, load_dataset
from raypo.evaluation.report.page import write_report
from raypo.evaluation.report.runs import ReportRun, data_of, find_runs, read_run
from raypo.evaluation.report.table import latex_table, markdown_table
from raypo.io.files import file_hash, read_json, value_hash, write_text
from raypo.io.remote import fetch, push_file
from raypo.orchestration.evaluate import evaluate
from raypo.orchestration.prepare import prepare
from raypo.orchestration.recommender import train as train_recommender
from raypo.orchestration.train import train
from raypo.training.objective import make_objective


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


def scale_config(scale: str, output: str | Path, seed: int) -> PipelineConfig:
    """The built-in pipeline of a scale: smoke, demo or full."""
    text = resources.files("raypo").joinpath(f"scales/{scale}.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text) | {"output": output, "seed": seed}
    return parse_config(PipelineConfig, values, source=f"scale {scale}")


def run_pipeline(config: PipelineConfig) -> Outcome:
    """Run every stage that is not finished yet, then the report."""
    started = time.monotonic()
    _check_sections(config)
    stages = _Stages(config)
    data = stages.prepare()
    recommender = stages.recommender(data)
    sft = stages.sft(data)
    aligned = stages.align(data, sft, recommender)
    runs = stages.evaluate(data, recommender, sft, aligned)
    report = config.output / "report.html"
    _write(report, config.title, load_dataset(data), runs)
    return Outcome([(r.name, r.metrics) for r in runs], report, time.monotonic() - started)


class _Stages:
    """The stages of one pipeline, each returning the run folder it filled or found."""

    def __init__(self, config: PipelineConfig) -> None:
        self._config = config
        self._model_hash = _model_hash(resolve_model(config.model))
        self.objective_name = _objective_name(config)
        self._minutes = dict(config.expected_minutes)

    def prepare(self) -> Path:
        values = dict(self._config.prepare)
        if self._config.builtin_data:
            folder = movielens_100k()
            values |= {
                "interactions": folder / "ml-100k.inter",
                "items": folder / "ml-100k.item",
            }
        return self._run("prepare", PrepareConfig, values, [], prepare, "dataset.json")

    def recommender(self, data: Path, kind: str | None = None) -> Path:
        """The recommender that alignment uses, or one of another kind for comparison."""
        values = self._config.recommender | {"data": data, "seed": self._config.seed}
        stage = "recommender" if kind is None else kind
        if kind is not None:
            values |= {"kind": kind}
        return self._run(
            stage, RecommenderConfig, values, [data], train_recommender, "summary.json"
        )

    def sft(self, data: Path) -> Path:
        values = self._training(self._config.sft, data)
        return self._run("sft", SftConfig, values, [data], train, "summary.json")

    def align(self, data: Path, sft: Path, recommender: Path) -> Path:
        values = self._training(self._config.align, data)
        values["policy"] = values["policy"] | {"adapter": sft / "adapter"}
        values["recommender"] = recommender
        inputs = [data, sft, recommender]
        return self._run("align", AlignConfig, values, inputs, train, "summary.json")

    def evaluate(self, data: Path, recommender: Path, sft: Path, aligned: Path) -> list[ReportRun]:
        settings = self._config.evaluate
        rows: dict[str, Any] = {
            key: settings[key] for key in ("max_rows", "split", "num_bootstrap") if key in settings
        }
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
        runs = []
        for name, what in baselines.items():
            values = rows | what | {"data": data}
            inputs = [data, what["recommender"]] if "recommender" in what else [data]
            stage = f"evaluate-{name.lower().replace(' ', '-')}"
            folder = self._run(stage, EvaluateConfig, values, inputs, evaluate, "metrics.json")
            runs.append(read_run(name, folder))
        names = {"Base LLM": "base", "SFT": "sft", self.objective_name: "aligned"}
        values = settings | {
            "data": data,
            "policy": settings.get("policy", {}) | {"model": self._config.model},
            "adapters": {"base": None, "sft": sft / "adapter", "aligned": aligned / "adapter"},
        }
        inputs = [data, sft, aligned]
        done = "aligned/metrics.json"
        folder = self._run("evaluate", EvaluateConfig, values, inputs, evaluate, done)
        trained = {"SFT": sft, self.objective_name: aligned}
        return runs + [
            read_run(name, folder / part, trained.get(name)) for name, part in names.items()
        ]

    def _training(self, section: dict[str, Any], data: Path) -> dict[str, Any]:
        policy = section.get("policy", {}) | {"model": self._config.model}
        return section | {"data": data, "seed": self._config.seed, "policy": policy}

    def _run(
        self,
        stage: str,
        model: type[BaseModel],
        values: dict[str, Any],
        inputs: list[Path],
        action: Callable[..., Any],
        done: str,
    ) -> Path:
        """Run a stage unless its folder says that it is finished."""
        settings = _without_places(values)
        key = value_hash([stage, settings, [folder.name for folder in inputs], self._model_hash])
        folder = self._config.output / f"{stage}-{key[:10]}"
        fetch(folder)
        if (folder / done).exists():
            _say(f"{stage}: finished before, in {uri(folder)}")
            return folder
        config = parse_config(model, values | {"output": folder}, source=stage)
        started = time.monotonic()
        expected = self._minutes.get(stage)
        seconds = None if expected is None else 60.0 * expected
        with progress_bar(stage, seconds, self._seconds_after(stage)) as progress:
            action(config, progress)
        took = clock(time.monotonic() - started)
        _say(f"{stage}: {took}, in {uri(folder)}")
        return folder

    def _seconds_after(self, stage: str) -> float:
        """What the stages behind this one are expected to take."""
        names = list(self._minutes)
        behind = names[names.index(stage) + 1 :] if stage in names else []
        return 60.0 * sum(self._minutes[name] for name in behind)


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def _without_places(value: Any) -> Any:
    """Settings with paths cut to their last part, which for a stage's folder holds its hash.

    So a pipeline that was moved, or whose cache was, still recognises what it finished.
    """
    if isinstance(value, Path):
        return [value.parent.name, value.name] if value.name == "adapter" else value.name
    if isinstance(value, dict):
        return {key: _without_places(inner) for key, inner in value.items()}
    return value


def _check_sections(config: PipelineConfig) -> None:
    """Every stage's section is validated before the first stage runs."""
    here = Path(".")
    filled = {"data": here, "output": here}
    raw = {"interactions": here, "items": here} if config.builtin_data else {}
    parse_config(PrepareConfig, config.prepare | raw | {"output": here}, source="prepare")
    parse_config(RecommenderConfig, config.recommender | filled, source="recommender")
    parse_config(SftConfig, config.sft | filled, source="sft")
    adapter = {"policy": config.align.get("policy", {}) | {"adapter": here}}
    align = parse_config(AlignConfig, config.align | filled | adapter, source="align")
    make_objective(align, setting="align.objective")
    parse_config(EvaluateConfig, config.evaluate | filled, source="evaluate")


def _model_hash(folder: Path) -> str:
    """Which weights: the content of small files, name and size of large ones."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    small = {file.name: file_hash(file) for file in files if file.stat().st_size < 1 << 24}
    large = {file.name: file.stat().st_size for file in files if file.name not in small}
    return value_hash([small, large])


_RECOMMENDERS = {"sasrec": "SASRec", "gru4rec": "GRU4Rec", "caser": "Caser"}


def _recommender_name(folder: Path) -> str:
    return _RECOMMENDERS[read_json(folder / "model.json").get("kind", "sasrec")]


def _objective_name(config: PipelineConfig) -> str:
    return ObjectiveConfig.model_validate(config.align.get("objective", {})).label.upper()


def report_on(
    given: Sequence[str], output: Path, title: str, data: Path | None = None
) -> list[Path]:
    """A report, and its table in Markdown and LaTeX, on evaluated models wherever they lie.

    Args:
        given: folders, or NAME=FOLDER, as `find_runs` takes them.
        output: the HTML file; the tables go beside it.
        title: heading.
        data: prepared data set; None takes the one that the models were evaluated on.

    Returns:
        The files.

    Raises:
        InputError: a folder holds no evaluation, or models answered different questions.
    """
    for one in given:
        fetch(local_path(one.partition("=")[2] or one))
    found = find_runs(given)
    data = data or next((used for _, folder, _ in found if (used := data_of(folder))), None)
    if data is None:
        raise InputError(f"{found[0][1]}: does not say on which data set; give --data FOLDER")
    fetch(data)
    runs = [read_run(*one) for one in found]
    return _write(output, title, load_dataset(data), runs)


def _write(output: Path, title: str, dataset: Dataset, runs: Sequence[ReportRun]) -> list[Path]:
    popularity = dataset.items["popularity"].to_numpy()
    audit = dataset.info.get("audit")
    write_report(output, title, runs, dataset.titles, popularity, audit=audit)
    named = [(run.name, run.metrics) for run in runs]
    tables = {"md": markdown_table(named), "tex": latex_table(named)}
    files = [output]
    for suffix, table in tables.items():
        name = "table" if output.name == "report.html" else output.stem
        files.append(output.with_name(f"{name}.{suffix}"))
        write_text(files[-1], table + "\n")
    for file in files:
        push_file(file)
    return files
