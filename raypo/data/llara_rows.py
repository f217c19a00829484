"""Rows of LLaRA's files as rows of titles, with candidates, which those files lack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from raypo.config import ImportConfig
from raypo.data.candidates import CandidateSampler
from raypo.data.published_rows import ImportedRow, Published
from raypo.data.readers.llara import LlaraRow, read_llara_items, read_llara_rows
from raypo.data.readers.rejected_rows import RejectedRows
from raypo.data.source_ids import SourceIds
from raypo.data.split import SPLITS
from raypo.errors import InputError


def read_published_llara(
    files: Mapping[str, Path], config: ImportConfig, rejected: RejectedRows
) -> Published:
    """Rows of pickled frames of item ids.

    LLaRA draws candidates while it evaluates: items that are neither in the history nor the target.
    They are drawn so here, once, by the seed.

    Args:
        files: by split.
        config: names the items, the number of candidates and the seed.
        rejected: collects unusable rows.

    Raises:
        InputError: a file cannot be read, there are too few items, or a row is unusable and the
            policy is `stop`.
    """
    if config.items is None:
        raise InputError("items: layout=llara needs the list of items, id2name.txt or u.item")
    items = read_llara_items(config.items)
    numbers = {item: number for number, item in enumerate(items)}
    titles = list(items.values())
    nothing = np.zeros(0)
    sampler = CandidateSampler(
        len(items), config.candidates, "uniform", nothing, nothing, config.seed
    )
    splits: dict[str, list[ImportedRow]] = {}
    short = 0
    for name, path in files.items():
        rows, left_out = read_llara_rows(path, items, rejected)
        short += left_out
        splits[name] = [
            _with_candidates(SPLITS.index(name), row, numbers, titles, sampler) for row in rows
        ]
    ids = SourceIds({str(item): title for item, title in items.items()})
    return Published(splits, ids, titles, {"short_histories_left_out": short} if short else {})


def _with_candidates(
    split: int,
    row: LlaraRow,
    numbers: Mapping[int, int],
    titles: list[str],
    sampler: CandidateSampler,
) -> ImportedRow:
    history = [numbers[item] for item in row.history]
    target = numbers[row.target]
    seen = {*history, target}
    if len(titles) - len(seen) < sampler.size - 1:
        raise InputError(
            f"{row.source.file}:{row.source.line}: candidates: {sampler.size} asked for, but only "
            f"{len(titles) - len(seen)} of {len(titles)} items are not in this row; ask for fewer"
        )
    candidates, _ = sampler.draw(split, row.source.line, seen, target)
    return ImportedRow(
        row.source,
        [titles[item] for item in history],
        [titles[item] for item in candidates],
        titles[target],
    )
