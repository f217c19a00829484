"""What is found in run folders, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from raypo.errors import InputError
from raypo.serving.runs import find_served


def training(folder: Path, data: str = "/data", model: str = "tiny-random", **settings) -> Path:
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    policy = {"model": model, "adapter": settings.pop("start", None)}
    config = {"data": data, "policy": policy | settings.pop("policy", {}), **settings}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "summary.json").write_text("{}")
    return folder


def fusion(folder: Path, runs: dict[str, str], weights: dict[str, float]) -> None:
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"runs": runs}))
    (folder / "fusion.json").write_text(json.dumps({"weights": weights}))


def evaluation(folder: Path, **settings) -> str:
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return str(folder)


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A pipeline that ran twice with other settings; the later run's SFT is older."""
    sft = training(tmp_path / "sft-1")
    training(tmp_path / "sft-2")
    old = training(tmp_path / "align-1", start=str(tmp_path / "sft-2/adapter"))
    new = training(tmp_path / "align-2", start=str(sft / "adapter"), recommender="/rec")
    for seconds, run in enumerate((old, new)):
        os.utime(run / "summary.json", (seconds, seconds))
    llm = evaluation(tmp_path / "evaluate-1", adapters={"aligned": str(new / "adapter")})
    runs = {
        "kNN": evaluation(tmp_path / "evaluate-knn", heuristic="item-knn"),
        "SASRec": evaluation(tmp_path / "evaluate-sasrec", recommender="/rec"),
    }
    fusion(tmp_path / "fuse-without-1", runs, {"kNN": 1.0, "SASRec": 2.0})
    weights = {"kNN": 0.5, "SASRec": 1.5, "NAPO": 0.25}
    fusion(tmp_path / "fuse-1", {**runs, "NAPO": f"{llm}/aligned"}, weights)
    return tmp_path


def test_a_pipeline_gives_its_newest_alignment_and_what_it_was_made_from(pipeline: Path) -> None:
    found = find_served([pipeline])
    assert found.adapters == {
        "base": None,
        "sft": pipeline / "sft-1/adapter",
        "aligned": pipeline / "align-2/adapter",
    }
    assert found.recommender == Path("/rec") and found.data == Path("/data")
    assert found.fusion is not None and found.names == ["base", "sft", "aligned", "fused"]
    assert found.fusion.adapter == pipeline / "align-2/adapter"
    assert found.fusion.adapter_weight == 0.25
    assert found.fusion.heuristics == {"item-knn": 0.5}
    assert found.fusion.recommenders == {Path("/rec"): 1.5}


def test_a_fusion_of_another_adapter_is_not_served(pipeline: Path) -> None:
    shutil.rmtree(pipeline / "align-2")
    found = find_served([pipeline])
    assert found.adapters["sft"] == pipeline / "sft-2/adapter"
    assert found.fusion is None


def test_weights_of_scores_that_a_server_does_not_compute_are_not_served(pipeline: Path) -> None:
    evaluated = pipeline / "evaluate-1" / "aligned"
    evaluated.mkdir()
    (evaluated / "evaluated.json").write_text('{"length_normalised": true}')
    assert find_served([pipeline]).fusion is None
    (evaluated / "evaluated.json").write_text('{"length_normalised": false}')
    assert find_served([pipeline]).fusion is not None
    (pipeline / "evaluate-knn" / "config.yaml").write_text("heuristic: random")
    assert find_served([pipeline]).fusion is None


def test_single_trainings_have_their_folders_names(tmp_path: Path) -> None:
    one = training(tmp_path / "a" / "napo", policy={"hints_recommender": ["item-knn", "/rec"]})
    other = training(tmp_path / "b" / "napo")
    found = find_served([one, other])
    assert found.adapters == {"base": None, "napo": one / "adapter", "napo/napo": other / "adapter"}
    assert found.recommender == Path("/rec")


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"data": "/other"}, "of data set /other"), ({"model": "big"}, "of base model big")],
)
def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path, changes, words) -> None:
    one = training(tmp_path / "one")
    with pytest.raises(InputError, match=f"two: is {words}.*serve them apart"):
        find_served([one, training(tmp_path / "two", **changes)])


def test_unfinished_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no finished run"):
        find_served([tmp_path])
    run = training(tmp_path / "run")
    (run / "adapter/adapter_config.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        find_served([run])
    (run / "config.yaml").write_text("[")
    with pytest.raises(InputError, match=r"config\.yaml: cannot be read"):
        find_served([run])
