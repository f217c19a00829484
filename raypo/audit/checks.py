"""Checks for problems in rows, each with a severity, a count, examples and advice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pandas as pd

from raypo.audit.finding import EXAMPLES, HELD_OUT, Finding, held_out, numbered, rows_finding
from raypo.data.dataset import Dataset
from raypo.recommenders.heuristics import candidates_of


def find_in_rows(dataset: Dataset) -> Iterator[Finding]:
    """Run all checks of rows."""
    for check in (
        _rejected,
        _shared_titles,
        _target_in_history,
        _rows_in_training,
        _test_rows_in_validation,
        _shared_users,
        _later_than_test,
        _ties,
        _unseen_candidates,
        _titles_in_titles,
    ):
        finding = check(dataset)
        if finding is not None:
            yield finding


def _rejected(dataset: Dataset) -> Finding | None:
    file = dataset.folder / "quarantine.jsonl"
    if not file.is_file():
        return None
    counts = dataset.info["counts"]
    with file.open(encoding="utf-8") as lines:
        first = [json.loads(line) for line in islice(lines, EXAMPLES)]
    examples = tuple(f"{row['file']}:{row['line']} {row['problem']}" for row in first)
    read = counts.get("interactions_read", sum(counts[split] for split in ("train", *HELD_OUT)))
    return Finding(
        "rows of the sources that could not be used (quarantine.jsonl)",
        "warning" if counts["quarantined"] > 0.01 * read else "note",
        counts["quarantined"],
        counts["quarantined"] + read,
        examples,
        "inspect them; results cover the other rows only",
    )


def _shared_titles(dataset: Dataset) -> Finding | None:
    if "source_title" not in dataset.items:
        return None
    titles = dataset.items["source_title"].str.casefold().str.split().str.join(" ")
    found = titles.duplicated(keep=False).to_numpy()
    if not found.any():
        return None
    shown = dataset.items[found].head(EXAMPLES)
    return Finding(
        "items that share their title with another item",
        "note",
        int(found.sum()),
        len(found),
        tuple(f"{row.source_id}: {row.source_title} -> {row.title}" for row in shown.itertuples()),
        "they are distinguished by year or number, which means nothing to a language model; if "
        "they are the same item, merge them",
    )


def _target_in_history(dataset: Dataset) -> Finding | None:
    rows = held_out(dataset)
    found = [t in set(h) for h, t in zip(rows["history"], rows["target"], strict=True)]
    return rows_finding(
        dataset,
        rows,
        np.array(found),
        "held-out rows whose target is in the history",
        "warning",
        "the answer is in the prompt; drop repeats before splitting, or report that repeats count",
    )


def _rows_in_training(dataset: Dataset) -> Finding | None:
    rows = held_out(dataset)
    return _shared_rows(dataset, rows, dataset.train, "held-out rows", "training")


def _test_rows_in_validation(dataset: Dataset) -> Finding | None:
    rows = held_out(dataset)
    rows = rows[rows["split"] == "test"]
    return _shared_rows(dataset, rows, dataset.validation, "test rows", "validation")


def _shared_rows(
    dataset: Dataset, rows: pd.DataFrame, others: pd.DataFrame, what: str, where: str
) -> Finding | None:
    known = {_key(history, target) for history, target in _pairs(others)}
    found = np.array([_key(history, target) in known for history, target in _pairs(rows)])
    return rows_finding(
        dataset,
        rows,
        found,
        f"{what} whose history and target are in {where} too",
        # Short histories of different users coincide by chance; copied rows would be many.
        "severe" if found.mean() > 0.01 else "note",
        "the answer was seen before; remove the rows from one of the splits",
    )


def _shared_users(dataset: Dataset) -> Finding | None:
    if dataset.info.get("options", {}).get("users") == "unknown":
        return None
    rows = held_out(dataset)
    found = rows["user_id"].isin(set(dataset.train["user_id"])).to_numpy()
    return rows_finding(
        dataset,
        rows,
        found,
        "held-out rows of users with training rows",
        "note",
        "expected with a split by time; an error with a split by user",
    )


def _later_than_test(dataset: Dataset) -> Finding | None:
    if not dataset.info.get("options", {}).get("timestamps", True):
        return None
    late = (dataset.train["timestamp"] > dataset.test["timestamp"].min()).to_numpy()
    return rows_finding(
        dataset,
        dataset.train,
        late,
        "training rows later than the earliest test row",
        "warning",
        "training uses the future of test rows; split by time, or report that it does",
    )


def _ties(dataset: Dataset) -> Finding | None:
    if not dataset.info.get("options", {}).get("timestamps", True):
        return None
    rows = pd.concat([numbered(dataset.train), held_out(dataset)], ignore_index=True)
    found = rows.duplicated(["user_id", "timestamp"]).to_numpy()
    options = dataset.info.get("options", {})
    # Data sets prepared by earlier versions have the option `ties`.
    random = "random" in (options.get("tie_break"), options.get("ties"))
    order = "random" if random else "that of the files"
    return rows_finding(
        dataset,
        rows,
        found,
        f"rows of the same time as an earlier row of their user (their order is {order})",
        "warning" if found.mean() > 0.5 and not random else "note",
        "interactions of the same time have no order; if the files are sorted by something else, "
        "prepare with tie_break=random",
    )


def _unseen_candidates(dataset: Dataset) -> Finding | None:
    if dataset.train.empty:
        return None
    rows = held_out(dataset)
    known = np.zeros(dataset.num_items, dtype=bool)
    known[np.concatenate(dataset.train["history"].to_list())] = True
    known[dataset.train["target"]] = True
    found = ~known[candidates_of(rows)].all(axis=1)
    return rows_finding(
        dataset,
        rows,
        found,
        "held-out rows with a candidate that is not in training",
        "note",
        "models that know the training items can easily rule out such candidates",
    )


def _titles_in_titles(dataset: Dataset) -> Finding | None:
    rows = held_out(dataset)
    titles = [title.casefold() for title in dataset.titles]

    def contained(candidates: np.ndarray) -> bool:
        own = [titles[item] for item in candidates]
        # Each title occurs once in the joined text, a contained one more often.
        joined = "\n".join(own)
        return any(joined.count(title) > 1 for title in own)

    found = np.array([contained(row) for row in rows["candidates"]])
    return rows_finding(
        dataset,
        rows,
        found,
        "held-out rows with a candidate's title inside another's",
        "note",
        "the papers' rule counts the longer title as no valid answer; compare by exact titles too",
    )


def _pairs(rows: pd.DataFrame) -> Iterator[tuple[np.ndarray, int]]:
    return zip(rows["history"], rows["target"], strict=True)


def _key(history: np.ndarray, target: int) -> tuple[int, ...]:
    return (*(int(item) for item in history), int(target))
