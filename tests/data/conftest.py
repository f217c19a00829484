from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raypo.config import PrepareConfig

NUM_USERS, NUM_ITEMS, NUM_INTERACTIONS = 12, 60, 400


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def log() -> list[tuple[str, str, int]]:
    """User, item and time, with many equal times and not in time order."""
    generator = np.random.default_rng(7)
    pairs = [(user, item) for user in range(NUM_USERS) for item in range(NUM_ITEMS)]
    chosen = generator.permutation(len(pairs))[:NUM_INTERACTIONS]
    times = generator.integers(0, 150, size=NUM_INTERACTIONS)
    return [
        (f"u{pairs[c][0]}", f"i{pairs[c][1]}", int(t)) for c, t in zip(chosen, times, strict=True)
    ]


@pytest.fixture
def make_config(tmp_path: Path, log: list[tuple[str, str, int]]) -> Callable[..., PrepareConfig]:
    """A PrepareConfig over the log, written as atomic files."""
    interactions = write_lines(
        tmp_path / "log.inter",
        ["user_id:token\titem_id:token\ttimestamp:float"]
        + [f"{user}\t{item}\t{time}" for user, item, time in log],
    )
    items = write_lines(
        tmp_path / "log.item",
        ["item_id:token\tmovie_title:token_seq\trelease_year:token"]
        + [f"i{i}\tFilm {i // 2}, The\t{1980 + i % 2}" for i in range(NUM_ITEMS)],
    )

    def make(**changes: object) -> PrepareConfig:
        values = {
            "interactions": interactions,
            "items": items,
            "output": tmp_path / "prepared",
            "year_field": "release_year",
        }
        return PrepareConfig.model_validate({**values, **changes})

    return make
