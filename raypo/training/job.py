"""Setup of a job: from a stage's configuration to what the loop trains with, on every rank."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from raypo.assets import resolve_model
from raypo.config import AlignConfig, PolicyConfig, SftConfig
from raypo.data.candidates import TrainingCandidates
from raypo.data.dataset import TrainingData, load_training_data
from raypo.data.prompts import is_pointwise, load_template
from raypo.data.tokenisation import (
    Encoder,
    check_template_of_hints,
    check_texts,
    make_encoder,
)
from raypo.errors import InputError
from raypo.io.progress import Progress
from raypo.objectives.yes_no import YesNoObjective
from raypo.policy.adapters import check_adapter, load_policy, make_projector
from raypo.policy.attention import row_multiple
from raypo.policy.compiled_layers import compile_layers
from raypo.policy.fused_lora import use_fused_lora
from raypo.policy.fused_norm import use_fused_norms
from raypo.policy.logps import PackedPolicy
from raypo.policy.precision import with_dtype
from raypo.policy.prompt_record import prompt_record, with_recorded_prompt
from raypo.recommenders.hint_sources import TrainingHints, training_hints
from raypo.recommenders.train import load_recommender
from raypo.training.batches import BatchMaker
from raypo.training.checkpoint import read_checkpoint
from raypo.training.engine import Engine, StepConfig, gathered, loading, make_engine
from raypo.training.hardware import check_hardware
from raypo.training.negative_sampling import check_negative_sampling
from raypo.training.negatives_and_reference import add_negatives_and_reference
from raypo.training.objective import make_objective
from raypo.training.sampler import BatchSampler, BatchSizes, make_batch_sampler
from raypo.training.tracking import check_mlflow
from raypo.training.trainer import Job
from raypo.training.validation import ValidationSet

TrainingConfig = SftConfig | AlignConfig


@dataclass(frozen=True)
class JobInputs:
    """What a run reads, checked.

    Attributes:
        policy: with the hints of the adapter that it starts from.
        template: text of the prompt's template.
        dataset: training and validation rows.
        hints: what recommenders know of the candidates; None without hints.
        sampler: with all ranks present.
    """

    policy: PolicyConfig
    template: str
    dataset: TrainingData
    hints: TrainingHints | None
    sampler: BatchSampler


def check_inputs(config: TrainingConfig) -> JobInputs:
    """Check everything that can be checked without loading the model.

    Raises:
        InputError: data set, model, adapter, recommender, template, objective or batch sizes are
            missing or do not fit together.
    """
    objective = make_objective(config)
    check_mlflow(config.mlflow)
    dataset = load_training_data(config.data, config.validation.max_rows, config.seed)
    resolve_model(config.policy.model)
    if config.policy.adapter is not None:
        check_adapter(config.policy.adapter)
    policy, template = with_recorded_prompt(config.policy, [config.policy.adapter])
    template = template if template is not None else load_template(policy.prompt)
    check_template_of_hints(policy, template)
    hints = training_hints(policy, dataset)
    check_hardware(config.policy, config.cluster)
    if isinstance(config, AlignConfig):
        if objective.needs_recommender and config.recommender is None:
            raise InputError(
                f"recommender: objective {config.objective.label!r} needs one; give its run folder"
            )
        if config.recommender is not None:
            load_recommender(config.recommender)
    check_texts(policy, dataset.given_texts)
    if is_pointwise(template) and isinstance(config, AlignConfig):
        raise InputError(
            "policy.prompt: a template with {candidate} is of `raypo sft`; alignment needs titles"
        )
    if is_pointwise(template) and policy.hints != "none":
        raise InputError("policy.hints: a template with {candidate} carries none")
    if config.curriculum != "none" and policy.hints != "vector":
        raise InputError("curriculum: is of vector hints; set policy.hints=vector")
    sampler = _batch_sampler(config, dataset, hints)
    if isinstance(config, AlignConfig):
        check_negative_sampling(config, dataset, sampler.total_steps)
    return JobInputs(policy, template, dataset, hints, sampler)


def _batch_sampler(
    config: TrainingConfig,
    dataset: TrainingData,
    hints: TrainingHints | None,
    active_world_size: int | None = None,
) -> BatchSampler:
    sizes = BatchSizes(
        config.micro_batch_size,
        config.gradient_accumulation_steps,
        config.cluster.most_workers,
        active_world_size,
        config.sharing_scope if isinstance(config, AlignConfig) else "step",
    )
    return make_batch_sampler(
        len(dataset.rows),
        config.max_rows,
        sizes,
        config.epochs,
        config.seed,
        hints.eligible if hints is not None else None,
    )


def build_job(
    config: TrainingConfig, rank: int, progress: Progress, checkpoint: Path | None = None
) -> Job:
    """Load everything that a run trains with, in the state of `checkpoint`.

    Args:
        config: configuration of the stage.
        rank: rank of this process; torch.distributed is initialised if there are several.
        progress: called while reference log-probs are computed.
        checkpoint: folder to resume from, or None.

    Raises:
        InputError: as `check_inputs`, or the checkpoint cannot be read.
    """
    config = with_dtype(config, config.cluster.gpus_per_worker > 0)
    inputs = check_inputs(config)
    dataset, hints = inputs.dataset, inputs.hints
    world_size = dist.get_world_size() if dist.is_initialized() else 1
    model_folder = resolve_model(config.policy.model)
    encoder = make_encoder(
        inputs.policy,
        model_folder,
        dataset.titles,
        template=inputs.template,
        hints=hints.hints if hints is not None else None,
        texts=dataset.given_texts,
    )
    job = Job(
        engine=_engine(config, model_folder, hints),
        objective=YesNoObjective() if is_pointwise(inputs.template) else make_objective(config),
        sampler=_batch_sampler(config, dataset, hints, world_size),
        make_batch=_batch_maker(config, inputs, encoder),
        optimiser=config.optimiser,
        validation_set=ValidationSet(
            dataset.validation, encoder, encoder.tokenizer.pad_token_id, config.micro_batch_size
        ),
        eval_steps=config.validation.eval_steps,
        prompt=prompt_record(inputs.policy, inputs.template),
        curriculum=config.curriculum,
        rank=rank,
    )
    if isinstance(config, AlignConfig) and config.recommender is not None:
        job.recommender = load_recommender(config.recommender).to(job.engine.device)
    if isinstance(config, AlignConfig):
        add_negatives_and_reference(config, job, inputs, progress)
    if checkpoint is not None:
        job.state = read_checkpoint(checkpoint, job.engine)
        if job.self_play is not None:
            job.self_play.load(checkpoint, job.state.step)
    return job


def _batch_maker(config: TrainingConfig, inputs: JobInputs, encoder: Encoder) -> BatchMaker:
    dataset = inputs.dataset
    candidates = TrainingCandidates(
        dataset.rows,
        dataset.num_items,
        dataset.info["options"]["candidates"],
        config.seed,
        dataset.cold,
    )
    return BatchMaker(
        dataset.rows,
        candidates,
        encoder,
        encoder.tokenizer.pad_token_id,
        negatives=_num_negatives(config, encoder),
        token_budget=config.token_budget,
        row_multiple=row_multiple(),
        folds=inputs.hints.folds if inputs.hints is not None else None,
        hint_dropout=config.hint_dropout if inputs.hints is not None else 0.0,
        hint_item_dropout=config.hint_item_dropout if inputs.hints is not None else 0.0,
        seed=config.seed,
    )


def _num_negatives(config: TrainingConfig, encoder: Encoder) -> int:
    """Negatives of each user: those of alignment, or one that TALLRec answers by No."""
    if isinstance(config, AlignConfig):
        return config.negatives
    return 1 if encoder.is_pointwise else 0


def _engine(config: TrainingConfig, model_folder: Path, hints: TrainingHints | None) -> Engine:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with loading(config.cluster, config.policy.dtype):
        model = load_policy(config.policy, model_folder, config.seed)
    if not config.cluster.partitions_weights and not torch.cuda.is_available():
        use_fused_lora(model)
        use_fused_norms(model)
    if config.policy.compile_layers:
        compile_layers(model)
    num_features = hints.hints.num_features if hints is not None else 0
    with gathered(config.cluster, [model.get_input_embeddings().weight]):
        projector = make_projector(config.policy, model, num_features, config.seed)
    policy = PackedPolicy(
        model,
        recompute=config.policy.gradient_checkpointing,
        projector=projector,
        offload=config.policy.offload_activations,
    )
    steps = StepConfig(config.optimiser, config.micro_batch_size)
    return make_engine(policy, config.cluster, steps)
