"""From a stage's configuration to the loop's Job, the same on every worker."""

from __future__ import annotations

import os
from pathlib import Path

import torch.distributed as dist

from raypo.assets import resolve_model
from raypo.config import AlignConfig, InputError, SftConfig, cache_folder
from raypo.data.candidates import TrainingCandidates
from raypo.data.dataset import Dataset, load_dataset, sample_rows
from raypo.data.prompts import load_template
from raypo.io.files import file_hash, read_json, value_hash
from raypo.io.progress import Progress
from raypo.policy.adapters import check_adapter, load_policy
from raypo.policy.attention import row_multiple
from raypo.policy.logps import PackedPolicy
from raypo.recommenders.train import load_recommender
from raypo.training.batches import BatchMaker, Plan, make_plan
from raypo.training.checkpoint import read_checkpoint
from raypo.training.encoder import make_encoder
from raypo.training.engine import Engine, make_engine
from raypo.training.objective import make_objective
from raypo.training.reference import FrozenAdapter, KeptReference, Reference, compute_reference
from raypo.training.tracking import check_mlflow
from raypo.training.trainer import Job, Reporter

TrainingConfig = SftConfig | AlignConfig


def check_inputs(config: TrainingConfig) -> tuple[Dataset, Plan]:
    """Everything that can be wrong without a model loaded, in one place and first.

    Raises:
        InputError: data set, model, adapter, recommender, template, objective or batch sizes.
    """
    objective = make_objective(config)
    check_mlflow(config.mlflow)
    dataset = load_dataset(config.data)
    resolve_model(config.policy.model)
    load_template(config.policy.prompt)
    if config.policy.adapter is not None:
        check_adapter(config.policy.adapter)
    if config.policy.quantisation is not None and config.cluster.gpus_per_worker == 0:
        raise InputError(
            "policy.quantisation: 4-bit weights need a GPU; set cluster.gpus_per_worker"
        )
    if isinstance(config, AlignConfig):
        if objective.needs_recommender and config.recommender is None:
            raise InputError(
                f"recommender: objective {config.objective.label!r} needs one; give its run folder"
            )
        if config.recommender is not None:
            load_recommender(config.recommender)
        if config.negatives > dataset.info["options"]["candidates"] - 1:
            raise InputError(
                f"negatives: {config.negatives} is more than the candidate sets hold "
                f"({dataset.info['options']['candidates'] - 1})"
            )
    return dataset, plan_of(config, dataset)


def plan_of(config: TrainingConfig, dataset: Dataset, workers: int | None = None) -> Plan:
    """The sampler's plan of a stage; `workers` where not all that it is made for are there."""
    return make_plan(
        len(dataset.train),
        config.max_rows,
        config.micro_batch_size,
        config.gradient_accumulation_steps,
        config.cluster.most_workers,
        config.epochs,
        config.seed,
        workers,
    )


def build_job(
    config: TrainingConfig,
    worker: int,
    reporter: Reporter,
    progress: Progress,
    checkpoint: Path | None = None,
) -> Job:
    """Load everything and put the run where `checkpoint` left it.

    Args:
        config: the stage's configuration.
        worker: this process's rank; torch.distributed is initialised if there are several.
        reporter: where metrics and checkpoints go.
        progress: told of each step.
        checkpoint: folder to resume from, or None.
    """
    dataset, _ = check_inputs(config)
    plan = plan_of(config, dataset, dist.get_world_size() if dist.is_initialized() else 1)
    model_folder = resolve_model(config.policy.model)
    encoder = make_encoder(config.policy, model_folder, dataset.titles)
    negatives = config.negatives if isinstance(config, AlignConfig) else 0
    candidates = TrainingCandidates(
        dataset.train, dataset.num_items, dataset.info["options"]["candidates"], config.seed
    )
    job = Job(
        engine=_engine(config, model_folder),
        objective=make_objective(config),
        plan=plan,
        make_batch=BatchMaker(
            dataset.train,
            candidates,
            encoder,
            encoder.tokenizer.pad_token_id,
            negatives,
            config.token_budget,
            row_multiple(),
        ),
        optimiser=config.optimiser,
        validation=config.validation,
        validation_rows=sample_rows(dataset.validation, config.validation.max_rows, config.seed),
        reporter=reporter,
        progress=progress,
        worker=worker,
    )
    if isinstance(config, AlignConfig) and config.recommender is not None:
        job.recommender = load_recommender(config.recommender).to(job.engine.device)
    if job.objective.needs_reference:
        assert isinstance(config, AlignConfig)
        job.reference = _reference(config, job, model_folder, dataset)
    if checkpoint is not None:
        job.state = read_checkpoint(checkpoint, job.engine)
    return job


def _engine(config: TrainingConfig, model_folder: Path) -> Engine:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    plain_torch = config.cluster.engine == "torch"
    model = load_policy(config.policy, model_folder, config.seed, lora_float32=plain_torch)
    return make_engine(
        PackedPolicy(model, recompute=config.policy.gradient_checkpointing),
        config.optimiser,
        config.cluster,
        config.gradient_accumulation_steps,
        config.micro_batch_size,
        config.policy.dtype,
    )


def _reference(config: AlignConfig, job: Job, model_folder: Path, dataset: Dataset) -> Reference:
    """A frozen copy of the adapter, or kept log-probs: found by content, else computed by all."""
    if config.reference == "on-the-fly":
        if config.cluster.zero_stage == 3:
            raise InputError(
                "reference on-the-fly: ZeRO stage 3 partitions the adapter, of which a frozen copy "
                "cannot take the place; use reference=precomputed or cluster.zero_stage=2"
            )
        return FrozenAdapter(job.engine)
    file = cache_folder() / "reference" / f"{_reference_hash(config, model_folder, dataset)}.st"
    kept: list[KeptReference | None] = [None]
    if job.worker == 0 and file.exists():
        kept = [KeptReference.load(file)]
    if dist.is_initialized():
        dist.broadcast_object_list(kept)
    if kept[0] is not None:
        return kept[0]
    reference = compute_reference(job.engine, job.plan, job.make_batch, job.worker, job.progress)
    if job.worker == 0:
        reference.save(file)
    return reference


def _reference_hash(config: AlignConfig, model_folder: Path, dataset: Dataset) -> str:
    """Of all that reference log-probs depend on, wherever it lies."""
    assert config.policy.adapter is not None
    weights = sorted(model_folder.glob("*.safetensors"))
    return value_hash(
        [
            _REFERENCE_FORMAT,
            file_hash(model_folder / "config.json"),
            [(file.name, _fingerprint(file)) for file in weights],
            file_hash(config.policy.adapter / "adapter_model.safetensors"),
            read_json(config.policy.adapter / "adapter_config.json").get("lora_alpha"),
            load_template(config.policy.prompt),
            [config.policy.dtype, config.policy.quantisation, config.policy.max_prompt_tokens],
            dataset.info["files"],
            [config.max_rows, config.epochs, config.seed, config.negatives, config.users_per_step],
        ]
    )


def _fingerprint(file: Path) -> str:
    """Content of a file; of a large one its size and time, since reading it would take minutes."""
    status = file.stat()
    large = status.st_size > 1 << 30
    return value_hash([status.st_size, status.st_mtime_ns]) if large else file_hash(file)


# Raised where a change makes kept values other than what would be computed.
_REFERENCE_FORMAT = 1
