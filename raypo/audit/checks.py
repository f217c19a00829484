"""Checks for problems in rows, each with a severity, a count, examples and advice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
import pandas as pd

from raypo.audit.baselines import HeuristicScore
from raypo.audit.item_orders import ascending_share
from raypo.data.dataset import Dataset
from raypo.recommenders.heuristics import candidates_of

Severity = Literal["severe", "warning", "note"]
_EXAMPLES = 3
_HELD_OUT = ("validation", "test")


@dataclass(frozen=True)
class Finding:
    """A problem that a reader of results should know about.

    Attributes:
        what: the problem in words.
        severity: `severe` changes what scores mean, `warning` may do so, `note` informs.
        count: rows (or items) concerned. of: of how many.
        examples: up to three.
        advice: what to do.
    """

    what: str
    severity: Severity
    count: int
    of: int
    examples: tuple[str, ...]
    advice: str


def find_in_rows(dataset: Dataset) -> Iterator[Finding]:
    """Run all checks of rows."""
    for check in (
        _rejected,
        _shared_titles,
        _target_in_history,
        _shared_rows,
        _shared_users,
        _later_than_test,
        _ties,
        _unseen_candidates,
        _titles_in_titles,
    ):
        finding = check(dataset)
        if finding is not None:
            yield finding


def find_in_orders(dataset: Dataset, orders: dict[str, np.ndarray]) -> Iterator[Finding]:
    """Find sequences that ascend in an order unrelated to time."""
    for name, rank in orders.items():
        share = ascending_share(dataset.test, rank)
        if share < 0.7:
            continue
        severity: Severity = "severe" if share >= 0.9 else "warning"
        examples = [
            " < ".join(f"{dataset.titles[item]} ({int(rank[item])})" for item in history[-3:])
            for history in dataset.test["history"].head(_EXAMPLES)
        ]
        yield Finding(
            f"{share:.1%} of neighbours in test sequences ascend {name} (50% by chance)",
            severity,
            len(dataset.test),
            len(dataset.test),
            tuple(examples),
            "sequences are probably not in the order of time: a model can score by learning the "
            "order of the file; make sequences from timestamps, or report the heuristics' scores",
        )


def find_in_heuristics(
    dataset: Dataset, heuristics: list[HeuristicScore], chance: float
) -> Iterator[Finding]:
    """Find non-personalised heuristics that score above twice chance on test rows."""
    rows = len(dataset.test)
    baselines = [one for one in heuristics if one.baseline]
    best = max(baselines, key=lambda one: one.hit_ratio, default=None)
    compared = f", {best.name} {best.hit_ratio:.3f}" if best else "; there are no baselines"
    for heuristic in heuristics:
        if heuristic.baseline or heuristic.low <= 2 * chance:
            continue
        beats = best is not None and heuristic.low > best.hit_ratio
        yield Finding(
            f"the non-personalised heuristic '{heuristic.name}' scores HitRatio@1 "
            f"{heuristic.hit_ratio:.3f} [{heuristic.low:.3f}, {heuristic.high:.3f}]; chance is "
            f"{chance:.3f}{compared}",
            "severe" if beats else "warning",
            round(heuristic.hit_ratio * rows),
            rows,
            tuple(_test_example(dataset, row) for row in heuristic.hits),
            "a model that scores higher may have learned this heuristic; report it in every table",
        )


def _test_example(dataset: Dataset, number: int) -> str:
    row = dataset.test.iloc[number]
    return f"test:{number} {_describe(dataset, row['history'], int(row['target']))}"


def _rejected(dataset: Dataset) -> Finding | None:
    file = dataset.folder / "quarantine.jsonl"
    if not file.is_file():
        return None
    counts = dataset.info["counts"]
    with file.open(encoding="utf-8") as lines:
        first = [json.loads(line) for line in islice(lines, _EXAMPLES)]
    examples = tuple(f"{row['file']}:{row['line']} {row['problem']}" for row in first)
    read = counts.get("interactions_read", sum(counts[split] for split in ("train", *_HELD_OUT)))
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
    shown = dataset.items[found].head(_EXAMPLES)
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
    rows = _held_out(dataset)
    found = [t in set(h) for h, t in zip(rows["history"], rows["target"], strict=True)]
    return _finding(
        dataset,
        rows,
        np.array(found),
        "held-out rows whose target is in the history",
        "warning",
        "the answer is in the prompt; drop repeats before splitting, or report that repeats count",
    )


def _shared_rows(dataset: Dataset) -> Finding | None:
    rows = _held_out(dataset)
    training = {_key(history, target) for history, target in _pairs(dataset.train)}
    found = np.array([_key(history, target) in training for history, target in _pairs(rows)])
    return _finding(
        dataset,
        rows,
        found,
        "held-out rows whose history and target are in training too",
        # Short histories of different users coincide by chance; copied rows would be many.
        "severe" if found.mean() > 0.01 else "note",
        "the model has seen the answer; remove them from one of the splits",
    )


def _shared_users(dataset: Dataset) -> Finding | None:
    if dataset.info.get("options", {}).get("users") == "unknown":
        return None
    rows = _held_out(dataset)
    found = rows["user_id"].isin(set(dataset.train["user_id"])).to_numpy()
    return _finding(
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
    return _finding(
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
    rows = pd.concat([_numbered(dataset.train), _held_out(dataset)], ignore_index=True)
    found = rows.duplicated(["user_id", "timestamp"]).to_numpy()
    options = dataset.info.get("options", {})
    # Data sets prepared by earlier versions have the option `ties`.
    random = "random" in (options.get("tie_break"), options.get("ties"))
    order = "random" if random else "that of the files"
    return _finding(
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
    rows = _held_out(dataset)
    known = np.zeros(dataset.num_items, dtype=bool)
    known[np.concatenate(dataset.train["history"].to_list())] = True
    known[dataset.train["target"]] = True
    found = ~known[candidates_of(rows)].all(axis=1)
    return _finding(
        dataset,
        rows,
        found,
        "held-out rows with a candidate that is not in training",
        "note",
        "models that know the training items can easily rule out such candidates",
    )


def _titles_in_titles(dataset: Dataset) -> Finding | None:
    rows = _held_out(dataset)
    titles = [title.casefold() for title in dataset.titles]

    def contained(candidates: np.ndarray) -> bool:
        own = [titles[item] for item in candidates]
        # Each title occurs once in the joined text, a contained one more often.
        joined = "\n".join(own)
        return any(joined.count(title) > 1 for title in own)

    found = np.array([contained(row) for row in rows["candidates"]])
    return _finding(
        dataset,
        rows,
        found,
        "held-out rows with a candidate's title inside another's",
        "note",
        "the papers' rule counts the longer title as no valid answer; compare by exact titles too",
    )


def _finding(
    dataset: Dataset,
    rows: pd.DataFrame,
    found: np.ndarray,
    what: str,
    severity: Severity,
    advice: str,
) -> Finding | None:
    if not found.any():
        return None
    examples = tuple(
        f"{row.split}:{row.row} {_describe(dataset, row.history, row.target)}"
        for row in _numbered(rows)[found].head(_EXAMPLES).itertuples()
    )
    return Finding(what, severity, int(found.sum()), len(found), examples, advice)


def _describe(dataset: Dataset, history: np.ndarray, target: int) -> str:
    shown = ", ".join(dataset.titles[item] for item in history[-3:])
    return f"… {shown} -> {dataset.titles[target]}"


def _numbered(rows: pd.DataFrame) -> pd.DataFrame:
    return rows if "split" in rows else rows.assign(split="train", row=np.arange(len(rows)))


def _held_out(dataset: Dataset) -> pd.DataFrame:
    frames = [
        getattr(dataset, split).assign(split=split, row=np.arange(len(getattr(dataset, split))))
        for split in _HELD_OUT
    ]
    return pd.concat(frames, ignore_index=True)


def _pairs(rows: pd.DataFrame) -> Iterator[tuple[np.ndarray, int]]:
    return zip(rows["history"], rows["target"], strict=True)


def _key(history: np.ndarray, target: int) -> tuple[int, ...]:
    return (*(int(item) for item in history), int(target))
