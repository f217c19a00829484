"""The unit of a log's times: found per file, converted, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from raypo.cli.tables import statistics
from raypo.config import PrepareConfig
from raypo.data.dataset import Dataset, load_dataset
from raypo.data.prepare import prepare
from raypo.errors import InputError
from tests.data.logs import write_log

MakeConfig = Callable[..., PrepareConfig]
Log = list[tuple[str, str, int]]
START = 1_500_000_000


def dated(log: Log, per_second: int = 1) -> Log:
    """The log's times as seconds of 2017, in another unit."""
    return [(user, item, (START + time) * per_second) for user, item, time in log]


def prepared(config: PrepareConfig) -> Dataset:
    prepare(config)
    return load_dataset(config.output)


def assert_same(one: Dataset, other: Dataset) -> None:
    for split in ("train", "validation", "test", "items"):
        pd.testing.assert_frame_equal(getattr(one, split), getattr(other, split))


@pytest.mark.parametrize(
    ("unit", "per_second"),
    [("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9)],
)
def test_a_log_is_the_same_in_any_unit(
    make_config: MakeConfig, log: Log, tmp_path: Path, unit: str, per_second: int
) -> None:
    seconds = make_config(
        interactions=write_log(tmp_path, dated(log), "s.inter"), output=tmp_path / "s"
    )
    other = make_config(
        interactions=write_log(tmp_path, dated(log, per_second), "other.inter"),
        output=tmp_path / "other",
    )
    first, second = prepared(seconds), prepared(other)
    assert_same(first, second)
    assert second.info["time_units"] == {unit: 1}
    assert f"times in {unit}, converted to seconds" in str(statistics(second.info, None).caption)
    assert "converted" not in str(statistics(first.info, None).caption)


def test_each_file_of_a_log_may_have_its_own_unit(
    make_config: MakeConfig, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raypo.data.prepare._SHARD_BYTES", 512)
    monkeypatch.setattr("raypo.data.readers.records.CHUNK", 23)
    whole = make_config(
        interactions=write_log(tmp_path, dated(log), "whole.inter"), output=tmp_path / "whole"
    )
    write_log(tmp_path, dated(log[:200]), "part0.inter")
    write_log(tmp_path, dated(log[200:], 1000), "part1.inter")
    parts = make_config(interactions=tmp_path / "part*.inter", output=tmp_path / "parts")
    assert_same(prepared(whole), prepared(parts))


def test_a_file_that_mixes_units_is_refused_or_converted_by_size(
    make_config: MakeConfig, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raypo.data.readers.records.CHUNK", 23)
    mixed = write_log(tmp_path, [*dated(log[:300]), *dated(log[300:], 1000)], "mixed.inter")
    with pytest.raises(InputError) as error:
        prepare(make_config(interactions=mixed))
    first, later = dated(log)[0][2], dated(log, 1000)[300][2]
    assert (
        f"mixed.inter: its times mix units: 300 in seconds (line 2: {first}) and "
        f"100 in milliseconds (line 302: {later}); `time_format=mixed` converts"
    ) in str(error.value)
    whole = make_config(
        interactions=write_log(tmp_path, dated(log), "whole.inter"), output=tmp_path / "whole"
    )
    by_size = make_config(interactions=mixed, time_format="mixed", output=tmp_path / "sized")
    assert_same(prepared(whole), prepared(by_size))


def test_counters_are_kept_as_they_are(make_config: MakeConfig, log: Log) -> None:
    data = prepared(make_config())
    assert data.info["time_units"] == {"numbers as they are": 1}
    assert data.test["timestamp"].max() == max(time for _, _, time in log)
