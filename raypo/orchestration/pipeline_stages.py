"""The stages of a pipeline, each with what it fills in of the others and the folders it reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from raypo.assets import movielens_100k, resolve_model
from raypo.config import (
    AlignConfig,
    EvaluateConfig,
    FuseConfig,
    PipelineConfig,
    PrepareConfig,
    RecommenderConfig,
    SftConfig,
    parse_config,
    with_settings,
)
from raypo.config.base import BaseConfig
from raypo.io.files import read_json
from raypo.orchestration.evaluate import evaluate
from raypo.orchestration.fuse import fuse
from raypo.orchestration.prepare import prepare
from raypo.orchestration.recommender import train as train_recommender
from raypo.orchestration.stage import Observer, Stage, StageRunner, weights_hash
from raypo.orchestration.train import train
from raypo.training.objective import make_objective

POLICY_NAMES = {"base": "Base LLM", "sft": "SFT"}
# Settings of `evaluate` that rankings of the catalogue do not have.
_OF_CANDIDATES = {"answers", "generate_rows", "num_permutations", "num_greedy_checks"}
# Settings that decide about rows and intervals; the others are of language models.
_OF_ROWS = {"max_rows", "split", "num_bootstrap", "seed"}
_RECOMMENDERS = {"sasrec": "SASRec", "gru4rec": "GRU4Rec", "caser": "Caser", "morec": "MoRec"}


class PipelineStages:
    """The stages of one pipeline. Each method returns run folders that it filled or found."""

    def __init__(self, config: PipelineConfig, observer: Observer) -> None:
        self._config = config
        weights = weights_hash(resolve_model(config.model))
        self._runner = StageRunner(config.output, weights, config.expected_minutes, observer)

    def prepare(self) -> Path:
        """The data set."""
        files = {}
        if self._config.builtin_data:
            folder = movielens_100k()
            files = {"interactions": folder / "ml-100k.inter", "items": folder / "ml-100k.item"}
        given = _given(self._config.prepare)
        return self._runner.run(
            Stage("prepare", PrepareConfig, given, files, (), prepare, "dataset.json")
        )

    def recommender(self, data: Path, kind: str | None = None) -> Path:
        """The recommender that alignment uses, or one of another kind for comparison."""
        filled_in: dict[str, Any] = {"data": data, "seed": self._config.seed}
        given = _given(self._config.recommender)
        if kind is not None:
            filled_in["kind"] = kind
            given.pop("folds", None)
        else:
            given |= self._config.folds
        return self._runner.run(
            Stage(
                kind or "recommender",
                RecommenderConfig,
                given,
                filled_in,
                (data,),
                train_recommender,
                "summary.json",
            )
        )

    def sft(self, data: Path, recommender: Path) -> Path:
        """Supervised fine-tuning, with the recommender's hints where the pipeline has them."""
        given = _given(self._config.sft)
        hints = self._hints(recommender)
        inputs = (data, recommender) if hints else (data,)
        filled_in = self._training(data) | hints
        return self._runner.run(
            Stage("sft", SftConfig, given, filled_in, inputs, train, "summary.json")
        )

    def _hints(self, recommender: Path) -> dict[str, Any]:
        """Settings of the hints that SFT begins with; later stages take them from its adapter."""
        if self._config.hints == "none":
            return {}
        sources = [
            recommender if source == "recommender" else source
            for source in self._config.hint_sources
        ]
        return {
            "policy.hints": self._config.hints,
            "policy.hints_recommender": sources,
            "policy.hint_fusion": self._config.hint_fusion,
        }

    def align(self, data: Path, sft: Path, recommender: Path) -> Path:
        """Alignment, from the SFT policy."""
        filled_in = {
            **self._training(data),
            "policy.adapter": sft / "adapter",
            "recommender": recommender,
        }
        return self._runner.run(
            Stage(
                "align",
                AlignConfig,
                _given(self._config.align),
                filled_in,
                (data, sft, recommender),
                train,
                "summary.json",
            )
        )

    def rank_catalogue(
        self, data: Path, recommender: Path, sft: Path, aligned: Path
    ) -> dict[str, Path]:
        """All models but random ones on the catalogue, by their names; empty if not asked for."""
        if self._config.catalogue is None:
            return {}
        runs = self.evaluate_baselines(data, recommender, self._baselines_ranking)
        del runs["Random"]
        more = self._policies_ranking(recommender)
        return runs | self.evaluate_policies(data, sft, aligned, more, (recommender,))

    @property
    def _baselines_ranking(self) -> dict[str, Any]:
        """Settings by which recommenders and heuristics rank the catalogue, if it is asked for.

        They rank everything: that is what retrieval is compared with.
        """
        return {} if self._config.catalogue is None else {"catalogue": "all"}

    def _policies_ranking(self, recommender: Path) -> dict[str, Any]:
        """Settings by which policies rank the catalogue, if it is asked for."""
        scope = self._config.catalogue
        if scope is None:
            return {}
        retrievers = {"retrievers": [recommender]} if scope.startswith("retrieved") else {}
        return {"catalogue": scope, "answers": ["likelihood"], **retrievers}

    def evaluate_baselines(
        self, data: Path, recommender: Path, more: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, Path]:
        """Heuristics and sequential recommenders, by their names in the report.

        Args:
            data: prepared data set.
            recommender: run folder of the one that alignment uses.
            more: settings of rankings of the catalogue.
        """
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
        runs = {}
        for name, what in baselines.items():
            runs[name] = self._evaluate_baseline(name, data, what, more)
        return runs

    def fuse(self, data: Path, runs: dict[str, Path]) -> dict[str, Path]:
        """Recommenders and heuristics fused, without and with the aligned policy."""
        aligned = aligned_name(self._config)
        policies = {*POLICY_NAMES.values(), aligned}
        others = {
            name: run for name, run in runs.items() if name not in policies and name != "Random"
        }
        without, with_llm = others, {**others, aligned: runs[aligned]}
        return {
            "Fused without LLM": self._fused("fuse-without", data, without),
            f"Fused with {aligned}": self._fused("fuse", data, with_llm),
        }

    def _fused(self, stage: str, data: Path, runs: dict[str, Path]) -> Path:
        assert self._config.fuse is not None
        # Folders of adapters are named alike in all evaluations; their parents have the hash.
        inputs = [folder if "-" in folder.name else folder.parent for folder in runs.values()]
        return self._runner.run(
            Stage(
                stage,
                FuseConfig,
                _given(self._config.fuse),
                {"data": data, "runs": runs},
                (data, *inputs),
                fuse,
                "fusion.json",
            )
        )

    def evaluate_policies(
        self,
        data: Path,
        sft: Path,
        aligned: Path,
        more: Mapping[str, Any] = MappingProxyType({}),
        inputs: tuple[Path, ...] = (),
    ) -> dict[str, Path]:
        """The base model, the SFT policy and the aligned policy, by their names in the report.

        Args:
            data: prepared data set.
            sft: run folder of SFT.
            aligned: run folder of alignment.
            more: settings of rankings of the catalogue.
            inputs: run folders that these read.
        """
        filled_in = {
            "data": data,
            "policy.model": self._config.model,
            "adapters": {"base": None, "sft": sft / "adapter", "aligned": aligned / "adapter"},
        }
        folder = self._runner.run(
            Stage(
                "catalogue" if more else "evaluate",
                EvaluateConfig,
                self._of_policies(more),
                filled_in | dict(more),
                (data, sft, aligned, *inputs),
                evaluate,
                "aligned/metrics.json",
            )
        )
        return {
            POLICY_NAMES["base"]: folder / "base",
            POLICY_NAMES["sft"]: folder / "sft",
            aligned_name(self._config): folder / "aligned",
        }

    def evaluate_policy(
        self, data: Path, recommender: Path, adapter: Path | None, training: Path | None
    ) -> Path:
        """One policy alone, as a study compares them; its metrics are in the folder's `policy`.

        It ranks the catalogue where the pipeline asks for that, and candidates otherwise.

        Args:
            data: prepared data set.
            recommender: run folder of the one that gives hints, and retrieves.
            adapter: None is the base model.
            training: run folder that the adapter is of.
        """
        more = self._policies_ranking(recommender)
        filled_in = {
            "data": data,
            "policy.model": self._config.model,
            "adapters": {"policy": adapter},
            **more,
        }
        inputs = (data,) if training is None else (data, training)
        if training is None:
            filled_in |= self._hints(recommender)  # others have them from their adapter
        if training is None or more:
            inputs = (*inputs, recommender)
        return self._runner.run(
            Stage(
                "catalogue-policy" if more else "evaluate-policy",
                EvaluateConfig,
                self._of_policies(more),
                filled_in,
                inputs,
                evaluate,
                "policy/metrics.json",
            )
        )

    def evaluate_recommender(self, data: Path, recommender: Path) -> Path:
        """The recommender itself, on the rows of the policies."""
        name = _recommender_name(recommender)
        what = {"recommender": recommender}
        return self._evaluate_baseline(name, data, what, self._baselines_ranking)

    def evaluate_heuristic(self, data: Path, name: str) -> Path:
        """A heuristic, on the rows of the policies."""
        return self._evaluate_baseline(name, data, {"heuristic": name}, self._baselines_ranking)

    def _of_policies(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """Given settings of `evaluate`, those of candidates left out where `more` ranks all."""
        given = _given(self._config.evaluate)
        return {name: one for name, one in given.items() if not more or name not in _OF_CANDIDATES}

    def _evaluate_baseline(
        self, name: str, data: Path, what: Mapping[str, Any], more: Mapping[str, Any]
    ) -> Path:
        stage = f"{'catalogue' if more else 'evaluate'}-{name.lower().replace(' ', '-')}"
        given = _given(self._config.evaluate, _OF_ROWS)
        inputs = (data, what["recommender"]) if "recommender" in what else (data,)
        filled_in = {**what, **more, "data": data}
        return self._runner.run(
            Stage(stage, EvaluateConfig, given, filled_in, inputs, evaluate, "metrics.json")
        )

    def _training(self, data: Path) -> dict[str, Any]:
        return {"data": data, "seed": self._config.seed, "policy.model": self._config.model}


def check_stages(config: PipelineConfig) -> None:
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
        *(
            (("fuse", FuseConfig, config.fuse, folders | {"runs": {"": here}}),)
            if config.fuse is not None
            else ()
        ),
    )
    for name, model, section, filled_in in stages:
        values = with_settings(_given(section), filled_in, source=name)
        stage = parse_config(model, values, source=name)
        if isinstance(stage, AlignConfig):
            make_objective(stage, setting="align.objective")


def aligned_name(config: PipelineConfig) -> str:
    """The aligned policy's name in tables: its objective's."""
    return config.align.objective.label.upper()


def _recommender_name(folder: Path) -> str:
    return _RECOMMENDERS[read_json(folder / "model.json").get("kind", "sasrec")]


def _given(section: BaseConfig, keys: set[str] | None = None) -> dict[str, Any]:
    """Explicitly given settings of a section; with `keys`, those of them."""
    return section.model_dump(exclude_unset=True, include=keys)
