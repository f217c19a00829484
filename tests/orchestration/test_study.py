"""Which stages a study runs for its cells, and what it finds; nothing is trained."""

from pathlib import Path

import pytest

from raypo.config import parse_config
from raypo.config.study import StudyConfig, load_study
from raypo.errors import InputError
from raypo.evaluation.study.record import StudyRecord
from raypo.orchestration.pipeline_stages import check_stages
from raypo.orchestration.study import run_study
from tests.orchestration.test_pipeline_stages import VALUES, Recorder
from tests.orchestration.test_pipeline_stages import ran as ran  # a fixture

FOLDER = Path(__file__).resolve().parents[2] / "studies"
STUDIES = sorted(set(FOLDER.rglob("*.yaml")) - set((FOLDER / "sizes").iterdir()))
CELLS = {
    "recommender": {"model": "recommender"},
    "base": {"model": "base"},
    "sft": {"model": "sft"},
    "napo": {},
    "s-dpo": {"settings": {"align.objective": {"name": "s-dpo"}}},
    "popularity": {"model": "popularity"},
}


def study_in(folder, **changed):
    pipeline = {key: value for key, value in VALUES.items() if key != "expected_minutes"}
    values = {"output": folder, "title": "Test", "pipeline": pipeline, "cells": CELLS}
    return parse_config(StudyConfig, values | changed, "test")


def test_cells_run_what_their_model_needs_and_share_what_they_have_in_common(ran, tmp_path):
    observer = Recorder()
    study = study_in(tmp_path / "study", seeds=[0])
    record = run_study(study, observer)
    assert observer.names("running") == [
        "prepare", "recommender", "evaluate-sasrec",
        "evaluate-policy",
        "sft", "evaluate-policy",
        "align", "evaluate-policy",
        "align", "evaluate-policy",
        "evaluate-popularity",
    ]  # fmt: skip
    folders = [record.folder(cell, 0) for cell in CELLS]
    assert len(set(folders)) == 6 and all((one / "metrics.json").exists() for one in folders)
    adapters = [one.adapters["policy"] for one in ran if getattr(one, "adapters", None)]
    assert adapters[0] is None and len(set(adapters)) == 4


def test_the_first_seed_of_every_cell_runs_first_and_a_second_call_runs_nothing(ran, tmp_path):
    begun = []
    study = study_in(tmp_path / "study", seeds=[3, 4])
    run_study(study, on_cell=lambda start: begun.append((start.seed, start.name)))
    assert begun == [(seed, cell) for seed in (3, 4) for cell in CELLS]
    seconds = {cell: StudyRecord.open(study).seconds(cell) for cell in CELLS}
    assert None not in seconds.values()
    count = len(ran)
    run_study(study)
    assert len(ran) == count
    assert {cell: StudyRecord.open(study).seconds(cell) for cell in CELLS} == seconds


def test_studies_may_share_run_folders_and_keep_records_of_their_own(ran, tmp_path):
    one, two = (study_in(tmp_path / name, runs=tmp_path / "runs") for name in ("one", "two"))
    run_study(one)
    count = len(ran)
    record = run_study(two)
    assert len(ran) == count
    assert record.folder("napo", 0) == StudyRecord.open(one).folder("napo", 0)
    assert {file.name for file in (tmp_path / "two").iterdir()} == {"study.json"}


def test_cells_rank_the_catalogue_where_the_study_asks_for_it(ran, tmp_path):
    study = study_in(tmp_path / "study", settings={"catalogue": "retrieved:20"}, seeds=[0])
    observer = Recorder()
    record = run_study(study, observer)
    assert [name for name in observer.names("running") if "-" in name] == [
        "catalogue-sasrec",
        *["catalogue-policy"] * 4,
        "catalogue-popularity",
    ]
    evaluations = [one for one in ran if hasattr(one, "catalogue")]
    of_policies = [one for one in evaluations if one.adapters]
    assert {one.catalogue for one in of_policies} == {"retrieved:20"}
    assert {len(one.retrievers) for one in of_policies} == {1}
    assert {one.catalogue for one in evaluations if not one.adapters} == {"all"}
    folders = {record.folder(cell, 0) for cell in CELLS}
    run_study(study_in(tmp_path / "study", seeds=[0]))  # candidates: other evaluations
    assert folders.isdisjoint(StudyRecord.open(study).folder(cell, 0) for cell in CELLS)


def test_cells_that_cannot_be_compared_are_refused_before_anything_runs(ran, tmp_path):
    cells = {"napo": {}, "all": {"settings": {"catalogue": "retrieved:20"}}}
    with pytest.raises(InputError, match="'all' ranks the catalogue and 'napo' candidates"):
        run_study(study_in(tmp_path / "study", cells=cells))
    assert not ran


def test_seeds_reach_training_and_no_evaluation(ran, tmp_path):
    run_study(study_in(tmp_path / "study", seeds=[3, 4]))
    training = [one for one in ran if hasattr(one, "micro_batch_size")]
    assert {one.seed for one in training} == {3, 4}
    assert {one.seed for one in ran if hasattr(one, "answers")} == {3}  # VALUES' own


def test_what_is_left_is_told_by_the_cells_that_ran(ran, tmp_path):
    left = []
    run_study(study_in(tmp_path / "study"), on_cell=lambda start: left.append(start.seconds_left))
    assert left[0] is None and all(one is not None and one >= 0 for one in left[1:])


def test_some_cells_run_by_themselves_and_their_names_are_checked(ran, tmp_path):
    begun = []
    study = study_in(tmp_path / "study", seeds=[0, 1])
    run_study(study, on_cell=lambda start: begun.append((start.name, start.total)), only=["sft"])
    assert begun == [("sft", 2), ("sft", 2)]
    count = len(ran)
    with pytest.raises(InputError, match="no cell stf; cells are recommender, base"):
        run_study(study, only=["stf"])
    assert len(ran) == count


def test_a_wrong_cell_ends_the_study_before_anything_runs(ran, tmp_path):
    cells = {"napo": {}, "bad": {"settings": {"align.objective": {"name": "nap"}}}}
    with pytest.raises(InputError, match="nap"):
        run_study(study_in(tmp_path / "study", cells=cells))
    assert not ran


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_the_studies_that_come_with_raypo_are_right(file):
    study = load_study(file)
    for cell in study.cells:
        check_stages(study.cell_pipeline(cell, study.seeds[0]))


def test_a_study_takes_its_bases_key_by_key_and_the_last_one_wins(tmp_path):
    files = {
        "size.yaml": "seeds: [0, 1]\ndiffers: small\npipeline: {sft: {max_rows: 8}}\n",
        "table.yaml": "base: size.yaml\ntitle: Table\noutput: one\ncells: {a: {model: sft}}\n",
        "large/size.yaml": "differs: large\npipeline: {model: large}\n",
        "large/table.yaml": "base: [../table.yaml, size.yaml]\noutput: two\n",
    }
    (tmp_path / "large").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    small = load_study(tmp_path / "table.yaml")
    assert small.pipeline == {"sft": {"max_rows": 8}} and small.seeds == (0, 1)
    large = load_study(tmp_path / "large" / "table.yaml", ["seeds=[7]"])
    assert large.pipeline == {"model": "large"} and list(large.cells) == ["a"]
    assert (large.differs, large.output.name, large.seeds) == ("large", "two", (7,))


@pytest.mark.parametrize(
    ("base", "message"),
    [("study.yaml", "is its own base"), ("other.yaml", r"other\.yaml: no such configuration file")],
)
def test_a_wrong_base_is_named(tmp_path, base, message):
    (tmp_path / "study.yaml").write_text(f"base: {base}\ntitle: Table\n")
    with pytest.raises(InputError, match=message):
        load_study(tmp_path / "study.yaml")
