"""Negatives of an alignment, and the reference's log-probs: from the cache, computed if missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch.distributed as dist

from raypo.assets import resolve_model
from raypo.config import AlignConfig, cache_folder
from raypo.errors import InputError
from raypo.io.files import file_hash, value_hash
from raypo.io.progress import Progress
from raypo.policy.adapters import adapter_hash
from raypo.policy.prompt_record import prompt_record
from raypo.recommenders.hint_sources import hint_hashes
from raypo.training.batches import BatchMaker
from raypo.training.negative_sampling import make_negative_sampler
from raypo.training.reference import (
    FrozenAdapter,
    PrecomputedReference,
    Reference,
    compute_reference,
)
from raypo.training.self_play import CandidateReference, SelfPlay
from raypo.training.trainer import Job

if TYPE_CHECKING:
    from raypo.training.job import JobInputs

# Increased when cached values no longer equal what would be computed.
_REFERENCE_FORMAT = 4


def add_negatives_and_reference(
    config: AlignConfig, job: Job, inputs: JobInputs, progress: Progress
) -> None:
    """Let the job draw negatives as configured, and look up reference log-probs if needed.

    A collective: every rank calls it, while the engine has the weights that alignment starts from.

    Args:
        config: of the alignment.
        job: what is added to.
        inputs: what the run reads.
        progress: called while log-probs are computed.

    Raises:
        InputError: the engine cannot keep the reference that is asked for.
        StoppedRun: the policy's log-probs of candidates are not finite.
    """
    candidates, sampler = job.make_batch.candidates, job.sampler
    precomputed = job.objective.needs_reference and config.reference == "precomputed"
    if "self-play" in config.negative_sources:
        make_batch = job.make_batch.with_all_candidates()
        rounds = config.negative_options.self_play_rounds
        job.self_play = SelfPlay(rounds, sampler, make_batch)
        # The reference needs the scores of all rounds' candidates by the same weights.
        steps = range(sampler.total_steps) if precomputed else job.self_play.steps_of(0)
        name = _reference_hash(config, inputs, ["all candidates", len(steps)])
        note = "self-play scores of the initial policy"
        scores = _cached_scores(name, job, make_batch, progress, steps, note)
        job.self_play.start(scores)
        if precomputed:
            job.reference = CandidateReference(scores, candidates)
    negatives = make_negative_sampler(config, inputs.dataset, job.self_play)
    job.make_batch = replace(job.make_batch, negative_sampler=negatives)
    if job.objective.needs_reference and job.reference is None:
        job.reference = _reference(config, job, inputs, progress)


def _reference(config: AlignConfig, job: Job, inputs: JobInputs, progress: Progress) -> Reference:
    """A frozen copy of the adapter, or log-probs from the cache, computed if missing."""
    if config.reference == "on-the-fly":
        if config.cluster.partitions_weights:
            raise InputError(
                "reference on-the-fly: ZeRO stage 3 partitions the adapter, which a frozen copy "
                "cannot replace; use reference=precomputed or cluster.zero_stage=2"
            )
        return FrozenAdapter(job.engine)
    name = _reference_hash(config, inputs, _sampling_content(config))
    return _cached_scores(name, job, job.make_batch, progress)


def _cached_scores(
    name: str,
    job: Job,
    make_batch: BatchMaker,
    progress: Progress,
    steps: range | None = None,
    note: str = "reference log-probs",
) -> PrecomputedReference:
    """Log-probs by the weights that alignment starts from: from the cache, computed if missing."""
    file = cache_folder() / "reference" / f"{name}.st"
    cached: list[PrecomputedReference | None] = [None]
    if job.rank == 0 and file.exists():
        cached = [PrecomputedReference.load(file)]
    if dist.is_initialized():
        dist.broadcast_object_list(cached)
    if cached[0] is not None:
        return cached[0]
    scores = compute_reference(job.engine, job.sampler, make_batch, job.rank, progress, steps, note)
    if job.rank == 0:
        scores.save(file)
    return scores


def _sampling_content(config: AlignConfig) -> list[object]:
    """What negatives depend on, beside the data set and the seed; nothing for uniform ones."""
    if config.negative_sources == {"uniform": 1.0} and config.negatives_from == "candidates":
        return []
    recommender = config.recommender
    return [
        config.negative_sources,
        config.negative_options.model_dump(mode="json"),
        config.negatives_from,
        file_hash(recommender / "model.safetensors") if recommender is not None else None,
    ]


def _reference_hash(config: AlignConfig, inputs: JobInputs, further: list[object]) -> str:
    """Hash of the content that reference log-probs depend on, `further` included."""
    assert config.policy.adapter is not None
    model_folder = resolve_model(config.policy.model)
    weights = sorted(model_folder.glob("*.safetensors"))
    return value_hash(
        [
            _REFERENCE_FORMAT,
            file_hash(model_folder / "config.json"),
            [(file.name, _fingerprint(file)) for file in weights],
            adapter_hash(config.policy.adapter),
            prompt_record(inputs.policy, inputs.template).model_dump(mode="json"),
            hint_hashes(inputs.policy),
            [config.policy.dtype, config.policy.quantisation, config.policy.max_prompt_tokens],
            inputs.dataset.info["files"],
            [
                [config.hint_dropout, config.hint_item_dropout],
                config.max_rows,
                config.epochs,
                config.seed,
                config.negatives,
                config.users_per_step,
            ],
            *([further] if further else []),
        ]
    )


def _fingerprint(file: Path) -> str:
    """Hash of a file's content, or of its size and time where reading it would take minutes."""
    status = file.stat()
    large = status.st_size > 1 << 30
    return value_hash([status.st_size, status.st_mtime_ns]) if large else file_hash(file)
