"""The sources of hints that a configuration names, with the fits that may hint at each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from raypo.config import PolicyConfig
from raypo.config.data import FoldsConfig
from raypo.data.candidates import num_unseen, sample_unseen
from raypo.data.conditional_logit import fit_conditional_logit, standardised
from raypo.data.dataset import Dataset
from raypo.data.folds import (
    SEEN_BY_ALL,
    fitted_rows,
    held_out_folds,
    number_of_fits,
    rows_hash,
)
from raypo.data.permutation import draw
from raypo.data.training_rows import TrainingRows
from raypo.errors import InputError
from raypo.io.files import file_hash, read_json
from raypo.recommenders.base import SequentialRecommender
from raypo.recommenders.heuristics import fit_heuristic, occurrences
from raypo.recommenders.hints import (
    ModelScore,
    RecommenderHints,
    SourceFits,
    label_of,
    log_popularity,
)
from raypo.recommenders.train import load_recommender

# Training rows, and candidates of each, that the weights of a fused hint are fitted to.
_FUSED_ROWS, _FUSED_CANDIDATES = 2000, 20
_LABELS = {"item-knn": "item-kNN", "markov-chain": "Markov chain", "popularity": "popularity"}


class HintData(Protocol):
    """What sources of hints read of a data set."""

    @property
    def rows(self) -> TrainingRows:
        """The training rows."""

    @property
    def num_items(self) -> int:
        """Items in the catalogue."""

    @property
    def fingerprint(self) -> str:
        """Hash of the data set's files."""

    @property
    def cold(self) -> np.ndarray | None:
        """Items that training must not show, bool [items]; None is none."""


@dataclass(frozen=True)
class HintInputs:
    """A data set as sources of hints read it."""

    rows: TrainingRows
    num_items: int
    fingerprint: str
    cold: np.ndarray | None = None

    @classmethod
    def of(cls, dataset: Dataset) -> HintInputs:
        """What sources read of a data set.

        Raises:
            InputError: it has no training rows.
        """
        dataset.require_rows("train")
        rows = TrainingRows.of_frame(dataset.train)
        return cls(rows, dataset.num_items, dataset.fingerprint, dataset.cold)


@dataclass(frozen=True)
class TrainingHints:
    """Hints for a training run.

    Attributes:
        hints: what prompts carry.
        folds: [rows] fold of each training row, SEEN_BY_ALL where no fit has not seen it; None
            with hints in fold.
    """

    hints: RecommenderHints
    folds: np.ndarray | None

    @property
    def eligible(self) -> np.ndarray | None:
        """Training rows with out-of-fold hints, ascending; None is all of them."""
        return None if self.folds is None else np.flatnonzero(self.folds != SEEN_BY_ALL)


def training_hints(policy: PolicyConfig, data: HintData) -> TrainingHints | None:
    """Hints at training rows, out of fold; None for a policy without hints.

    Raises:
        InputError: a source was fitted to the rows that it would hint at, and
            `policy.hints_in_fold` does not allow it; or to another data set.
    """
    if policy.hints in (None, "none"):
        return None
    if policy.hints_in_fold:
        return TrainingHints(held_out_hints(policy, data), None)
    config = _common_folds(policy)
    folds = held_out_folds(config, data.rows)
    return TrainingHints(_folded_hints(policy, data, config, folds), folds)


def held_out_hints(policy: PolicyConfig, data: HintData) -> RecommenderHints:
    """Hints at rows that training does not hold, by fits to all training rows.

    Vectors come from the fit that a policy was trained with: others have other axes.

    Raises:
        InputError: a source is missing or was fitted to another data set.
    """
    needs_folds = policy.hints == "vector" or policy.hint_fusion
    if not needs_folds or policy.hints_in_fold:
        sources = [_fits(source, None, None, policy, data) for source in _sources(policy)]
        return _hints(policy, sources, data)
    config = _common_folds(policy)
    return _folded_hints(policy, data, config, held_out_folds(config, data.rows))


def _folded_hints(
    policy: PolicyConfig, data: HintData, config: FoldsConfig, folds: np.ndarray
) -> RecommenderHints:
    """Hints whose sources have fits that have not seen some of the training rows."""
    sources = [_fits(source, config, folds, policy, data) for source in _sources(policy)]
    hints = _hints(policy, sources, data)
    return replace(hints, weights=_weights(hints, data, folds)) if policy.hint_fusion else hints


def _weights(hints: RecommenderHints, data: HintData, folds: np.ndarray) -> np.ndarray:
    """Weights [s] of a conditional logit over out-of-fold scores of training rows."""
    eligible = np.flatnonzero(folds != SEEN_BY_ALL)
    count = min(_FUSED_ROWS, len(eligible))
    chosen = eligible[draw([0, len(eligible)], len(eligible), count)[np.arange(count)]]
    unseen = num_unseen((), data.num_items, data.cold) - int(np.diff(data.rows.seen_offsets).max())
    num_others = min(_FUSED_CANDIDATES - 1, unseen)
    generator = np.random.default_rng(0)
    candidates = []
    for row in chosen.tolist():
        seen = set(data.rows.seen_by_user_of(row).tolist())
        others = sample_unseen(generator, seen, data.num_items, num_others, data.cold)
        candidates.append([int(data.rows.targets[row]), *others])
    histories = [data.rows.history(row) for row in chosen.tolist()]
    scores = hints.scores(histories, candidates, [int(fold) for fold in folds[chosen]])
    features = np.stack([standardised(own).T for own in scores])
    targets = np.zeros(len(chosen), dtype=np.int64)
    return fit_conditional_logit(features, targets, np.asarray(data.rows.users[chosen])).weights


def _hints(policy: PolicyConfig, sources: Sequence[SourceFits], data: HintData) -> RecommenderHints:
    assert policy.hints is not None
    reads_items = policy.hints == "vector" and "item" in policy.hint_features
    if reads_items and all(source.item_vectors is None for source in sources):
        raise InputError(
            "policy.hint_features: `item` needs a sequential recommender among "
            "policy.hints_recommender; heuristics have no item vectors"
        )
    counts = occurrences(data.rows, np.arange(len(data.rows)), data.num_items)
    return RecommenderHints(
        policy.hints,
        tuple(sources),
        log_popularity(counts),
        policy.hint_features,
        policy.hint_marker,
        new=None if data.cold is None else counts == 0,
    )


def _sources(policy: PolicyConfig) -> Sequence[Path | str]:
    if policy.hints_recommender is None:
        raise InputError(
            f"policy.hints_recommender: hints={policy.hints} needs a source: the run folder of a "
            "recommender, or popularity, item-knn or markov-chain"
        )
    return policy.hints_recommender


def _common_folds(policy: PolicyConfig) -> FoldsConfig:
    """The folds of all sources; heuristics follow those of the recommenders."""
    found: dict[str, FoldsConfig] = {}
    for source in _sources(policy):
        if isinstance(source, Path):
            settings = _settings(source)
            if settings.get("folds") is None:
                raise InputError(
                    f"policy.hints_recommender: {source} was fitted to all training rows, so that "
                    "its hints at them are in fold; train it with folds.by=time (or users), or "
                    "set policy.hints_in_fold=true"
                )
            found[str(source)] = FoldsConfig(**settings["folds"])
    if len(set(map(repr, found.values()))) > 1:
        described = "; ".join(f"{name}: {folds!r}" for name, folds in found.items())
        raise InputError(f"policy.hints_recommender: sources with different folds ({described})")
    config = next(iter(found.values()), FoldsConfig())
    if policy.hints == "vector" and config.by != "time":
        raise InputError(
            "policy.hints=vector: needs a recommender with folds.by=time; the fits of folds.by="
            "users have vectors of different axes"
        )
    return config


def _fits(
    source: Path | str,
    config: FoldsConfig | None,
    folds: np.ndarray | None,
    policy: PolicyConfig,
    data: HintData,
) -> SourceFits:
    """A source's fits; without `config` that to all rows alone."""
    numbers = range(number_of_fits(config)) if config is not None else range(0)
    if isinstance(source, str):
        name: Any = source
        fit = partial(fit_heuristic, name, data.rows, data.num_items)
        parts = [fit(fitted_rows(folds, fold)) for fold in numbers] if folds is not None else []
        return SourceFits(_LABELS[source], fit(), tuple(parts))
    kind = str(_settings(source).get("kind", "sasrec"))
    models = [_fold_model(source, fold, folds, data) for fold in numbers]
    full = models[0] if policy.hints == "vector" and models else _model(source, data)
    vectors = item_vectors(full) if policy.hints == "vector" else None
    scores = tuple(ModelScore(model) for model in models)
    return SourceFits(label_of(source, kind), ModelScore(full), scores, vectors, kind == "morec")


def _model(folder: Path, data: HintData) -> SequentialRecommender:
    model = load_recommender(folder)
    fitted_to = _settings(folder).get("dataset")
    if fitted_to != data.fingerprint:
        raise InputError(
            f"policy.hints_recommender: {folder} was fitted to another data set, whose training "
            "rows may be held out here; train it on this one"
        )
    return model


def _fold_model(
    folder: Path, fold: int, folds: np.ndarray | None, data: HintData
) -> SequentialRecommender:
    """A fit to a part of the training rows, checked to be the part that it should be."""
    part = folder / "folds" / str(fold)
    model = _model(part, data)
    assert folds is not None
    if _settings(part).get("fitted_rows") != rows_hash(fitted_rows(folds, fold)):
        raise InputError(
            f"{part}: was fitted to other rows than folds of {folder / 'model.json'} say; train "
            "the recommender again"
        )
    return model


def hint_hashes(policy: PolicyConfig) -> list[str]:
    """Hashes of the weights of a policy's sources of hints, and the names of heuristics."""
    hashes = []
    for source in policy.hints_recommender or ():
        files = sorted(source.rglob("model.safetensors")) if isinstance(source, Path) else []
        hashes += [file_hash(file) for file in files] if files else [str(source)]
    return hashes


def describe_hints(policy: PolicyConfig) -> str:
    """A sentence on the hints that a policy was trained with."""
    labels = [
        _LABELS[source]
        if isinstance(source, str)
        else label_of(source, str(_settings(source).get("kind", "sasrec")))
        for source in _sources(policy)
    ]
    joined = ", ".join(labels)
    if policy.hint_fusion:
        joined = f"{joined}, fused into one"
    fold = "IN FOLD, which the policy trusts too much" if policy.hints_in_fold else "out of fold"
    return f"prompts have hints ({policy.hints}) of {joined}; in training {fold}."


def item_vectors(model: SequentialRecommender) -> np.ndarray:
    """Item vectors [items, d] of unit length times sqrt(d), as features."""
    table = unit_item_vectors(model)
    return np.asarray(table * np.sqrt(table.shape[1]))


def unit_item_vectors(model: SequentialRecommender) -> np.ndarray:
    """Item vectors [items, d] of unit length."""
    items: Any = model
    weight = items.items.weight.detach().float()
    unit: np.ndarray = (weight / weight.norm(dim=1, keepdim=True).clamp_min(1e-12)).numpy()
    return unit


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "model.json"
    if not file.exists():
        raise InputError(f"{folder}: no trained recommender there (model.json is missing)")
    return dict(read_json(file))
