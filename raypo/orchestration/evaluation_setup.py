"""The inputs of an evaluation, resolved and checked before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from raypo.assets import resolve_model
from raypo.config import EvaluateConfig, PolicyConfig
from raypo.data.dataset import Dataset, load_dataset, sample_rows
from raypo.data.prompts import load_template
from raypo.data.tokenisation import Encoder, make_encoder
from raypo.errors import InputError
from raypo.evaluation.answer_parsing import AnswerParser
from raypo.evaluation.intervals import Resampling
from raypo.evaluation.models import Baseline, LanguageModels
from raypo.evaluation.outputs import Outputs
from raypo.evaluation.record import EvaluationRecord, InferenceRecord, candidates_hash
from raypo.evaluation.requests import RequestOptions, max_constrained_tokens
from raypo.evaluation.summary import MetricOptions
from raypo.io.files import value_hash
from raypo.io.run_folder import check_run_folder, open_run
from raypo.orchestration.inference.run import InferenceOptions
from raypo.orchestration.stage import weights_hash
from raypo.policy.adapters import adapter_hash, check_adapter
from raypo.policy.precision import with_dtype
from raypo.policy.prompt_record import with_recorded_prompt
from raypo.recommenders.heuristics import heuristic_scores
from raypo.recommenders.hint_sources import HintInputs, describe_hints, held_out_hints, hint_hashes
from raypo.recommenders.scoring import score_candidates
from raypo.recommenders.train import load_recommender


@dataclass(frozen=True)
class EvaluationOptions:
    """Settings by step: requests, inference, metrics."""

    requests: RequestOptions
    inference: InferenceOptions
    metrics: MetricOptions


@dataclass(frozen=True)
class Evaluation:
    """The resolved inputs of an evaluation.

    Attributes:
        dataset: prepared data set.
        rows: columns row, user_id, history, target, candidates.
        models: what is evaluated.
        outputs: folders.
        options: settings of the steps.
    """

    dataset: Dataset
    rows: pd.DataFrame
    models: LanguageModels | Baseline
    outputs: Outputs
    options: EvaluationOptions

    @property
    def popularity(self) -> np.ndarray:
        """Occurrences of each item in the training sequences, [items]."""
        return np.asarray(self.dataset.items["popularity"])

    @property
    def parser(self) -> AnswerParser:
        """Turns answers into predictions of the rows."""
        return AnswerParser(self.rows, self.dataset.titles, self.options.requests.seed)

    def record(self, inference: InferenceRecord | None) -> EvaluationRecord:
        """The content of `evaluated.json`."""
        return EvaluationRecord(
            dataset=self.dataset.fingerprint,
            rows=value_hash(self.rows["row"].tolist()),
            candidates=candidates_hash(self.rows),
            length_normalised=self.options.metrics.length_normalised,
            inference=inference,
            hints=self._hints(),
        )

    def _hints(self) -> str | None:
        models = self.models
        if isinstance(models, Baseline) or models.policy.hints == "none":
            return None
        return describe_hints(models.policy)


def resolve_evaluation(config: EvaluateConfig) -> Evaluation:
    """Load the data, find the models, and open the output folder.

    Raises:
        InputError: an input is wrong.
    """
    gpus = max(config.engine.gpus_per_engine, config.scorer.gpus_per_worker)
    config = with_dtype(config, gpus > 0)
    check_run_folder(config.output, config)
    _check_models(config)
    dataset = load_dataset(config.data)
    if config.split != "test":
        dataset.require_rows(config.split)
    if config.heuristic not in (None, "random") or config.catalogue is not None:
        dataset.require_rows("train")
    models = _resolve_models(config, dataset)
    open_run(config.output, config)
    names = models.names
    outputs = Outputs(config.output, {name: config.output / name for name in names})
    outputs.claim(_inputs(config, dataset, models))
    rows = sample_rows(getattr(dataset, config.split), config.max_rows, config.seed)
    options = _options(config, outputs.partial, is_baseline=isinstance(models, Baseline))
    return Evaluation(dataset, rows, models, outputs, options)


def _check_models(config: EvaluateConfig) -> None:
    """Check what needs no data set, which may take long to read."""
    given = [config.adapters, config.recommender, config.heuristic]
    if sum(value is not None for value in given) > 1:
        raise InputError("evaluate: give one of adapters, recommender and heuristic, not several")
    if config.recommender is None and config.heuristic is None:
        _refuse_quantised_engines(config)
        _check_head_kernel(config)
        resolve_model(config.policy.model)
        if config.policy.prompt is not None:
            load_template(config.policy.prompt)
        for folder in _adapters(config).values():
            if folder is not None:
                check_adapter(folder)


def _refuse_quantised_engines(config: EvaluateConfig) -> None:
    """Refuse vLLM for 4-bit weights: its engines would serve the model in full precision."""
    engines = config.scorer.kind == "vllm" or {"generate", "constrained"} & set(config.answers)
    if config.policy.quantisation is not None and engines:
        raise InputError(
            "policy.quantisation: vLLM engines serve the unquantised model, whose answers are not "
            "the policy's; set answers=[likelihood] and scorer.kind=packed, or leave "
            "policy.quantisation out"
        )


def _check_head_kernel(config: EvaluateConfig) -> None:
    if config.policy.head_kernel == "triton" and config.scorer.gpus_per_worker == 0:
        raise InputError("policy.head_kernel: triton needs a GPU; set scorer.gpus_per_worker")


def _adapters(config: EvaluateConfig) -> dict[str, Path | None]:
    """Adapter folders by name; '' where one model is evaluated, None for the base model."""
    return dict(config.adapters) if config.adapters is not None else {"": config.policy.adapter}


def _resolve_models(config: EvaluateConfig, dataset: Dataset) -> LanguageModels | Baseline:
    if config.recommender is not None:
        return Baseline(partial(score_candidates, load_recommender(config.recommender)))
    if config.heuristic is not None:
        heuristic, seed = config.heuristic, config.seed
        return Baseline(lambda rows: heuristic_scores(heuristic, dataset, rows, seed))
    folder, adapters = resolve_model(config.policy.model), _adapters(config)
    policy, encoder = recorded_encoder(
        config.policy, folder, adapters.values(), dataset, _context(config)
    )
    generated = {"generate", "constrained"} & set(config.answers)
    if encoder.is_pointwise and generated:
        raise InputError(
            "answers: a template with {candidate} is answered by Yes or No for each candidate, "
            "which ranks them; set answers=[likelihood]"
        )
    if "constrained" in config.answers:
        encoder = _with_room_for_constrained(encoder, config.engine.max_model_len)
    return LanguageModels(folder, adapters, policy, encoder)


def recorded_encoder(
    policy: PolicyConfig,
    model_folder: Path,
    adapters: Iterable[Path | None],
    dataset: Dataset,
    context: int | None = None,
) -> tuple[PolicyConfig, Encoder]:
    """The policy with the prompt that its adapters were trained with, and its encoder.

    Args:
        policy: settings of a user.
        model_folder: folder of the base model.
        adapters: PEFT folders; None is the base model.
        dataset: whose held-out rows are encoded.
        context: as of `make_encoder`.

    Raises:
        InputError: adapters were trained with different prompts, or hints cannot be made.
    """
    policy, template = with_recorded_prompt(policy, adapters)
    hints = None
    if policy.hints != "none":
        hints = held_out_hints(policy, HintInputs.of(dataset))
    texts = dataset.given_texts
    encoder = make_encoder(
        policy, model_folder, dataset.titles, context, hints, template, texts=texts
    )
    return policy, encoder


def _with_room_for_constrained(encoder: Encoder, max_model_len: int) -> Encoder:
    """Shorten prompts so that no constrained answer ends in the middle of a title.

    Raises:
        InputError: the longest title leaves no room for a prompt.
    """
    answer = max_constrained_tokens(encoder.longest_response())
    if answer >= max_model_len:
        raise InputError(
            f"engine.max_model_len={max_model_len}: constrained answers take up to {answer} tokens"
        )
    fitting = max_model_len - answer
    limit = encoder.max_prompt_tokens
    return replace(encoder, max_prompt_tokens=fitting if limit is None else min(limit, fitting))


def _inputs(
    config: EvaluateConfig, dataset: Dataset, models: LanguageModels | Baseline
) -> dict[str, str]:
    """Hashes of what the answers depend on beside the configuration, which names paths alone."""
    inputs = {"data set": dataset.fingerprint}
    if isinstance(models, LanguageModels):
        inputs |= {
            "model": weights_hash(models.folder),
            "prompt": value_hash(models.encoder.template),
        }
        if models.policy.item_text:
            inputs["item_text"] = "true"
        if models.policy.hints != "none":
            inputs["hints"] = value_hash(hint_hashes(models.policy))
        for name, folder in models.adapters.items():
            if folder is not None:
                inputs[f"adapter {name!r}" if name else "adapter"] = adapter_hash(folder)
    elif config.recommender is not None:
        inputs["recommender"] = weights_hash(config.recommender)
    for source in config.retrievers or ():
        if isinstance(source, Path):
            inputs[f"retriever {source}"] = weights_hash(source)
    return inputs


def _context(config: EvaluateConfig) -> int | None:
    """Tokens of prompt and title together; None is the model's own limit.

    The shortest context of all engines counts, so that prompts are the same in all modes.
    """
    contexts = []
    if {"generate", "constrained"} & set(config.answers):
        contexts.append(config.engine.max_model_len - config.engine.max_new_tokens)
    if "likelihood" in config.answers and config.scorer.kind == "vllm":
        contexts.append(config.scorer.max_model_len - 1)  # vLLM generates a token that is unused
    return min(contexts, default=None)


def _options(config: EvaluateConfig, partial_folder: Path, is_baseline: bool) -> EvaluationOptions:
    requests = RequestOptions(
        config.answers, config.generate_rows, config.num_permutations, config.seed
    )
    if is_baseline:
        requests = RequestOptions(("likelihood",), None, 0, config.seed)
    return EvaluationOptions(
        requests,
        InferenceOptions(config.engine, config.scorer, config.num_greedy_checks, partial_folder),
        MetricOptions(
            Resampling(config.num_bootstrap, config.seed),
            length_normalised=config.scorer.length_normalised and not is_baseline,
            calibrated=not is_baseline,
        ),
    )
