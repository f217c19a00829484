"""Folds: training rows that a fit has not seen, so that what it says of them is out of fold."""

from __future__ import annotations

import hashlib

import numpy as np

from raypo.config.data import FoldsConfig
from raypo.data.training_rows import TrainingRows

SEEN_BY_ALL = -1


def held_out_folds(config: FoldsConfig, rows: TrainingRows) -> np.ndarray:
    """The fit that has not seen each training row, [rows]; SEEN_BY_ALL where there is none.

    By time, fit 0 takes the earliest rows and the later ones are held out of it. By users, fit i
    takes all rows but those of fold i.
    """
    if config.by == "time":
        times = np.asarray(rows.timestamps)
        last = np.partition(times, _count(config, len(times)) - 1)[_count(config, len(times)) - 1]
        return np.where(times <= last, SEEN_BY_ALL, 0)
    fold_of = np.random.default_rng(0).permutation(len(rows.user_ids)) % config.count
    folds: np.ndarray = fold_of[np.asarray(rows.users)]
    return folds


def fitted_rows(folds: np.ndarray, fold: int) -> np.ndarray:
    """Whether fit `fold` takes each training row, bool [rows]."""
    fitted: np.ndarray = folds != fold
    return fitted


def rows_hash(fitted: np.ndarray) -> str:
    """Hash of which rows a fit takes, which a recommender keeps so that it can be checked."""
    return hashlib.sha256(np.packbits(fitted).tobytes()).hexdigest()


def number_of_fits(config: FoldsConfig) -> int:
    """Number of fits to parts of the rows."""
    return 1 if config.by == "time" else config.count


def _count(config: FoldsConfig, rows: int) -> int:
    return min(max(1, round(config.share * rows)), rows)
