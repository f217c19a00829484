"""Which stages a pipeline runs, in which folders, and what it reports; nothing is trained."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from raypo.config import PipelineConfig, parse_config
from raypo.errors import InputError
from raypo.orchestration import pipeline, pipeline_stages

STAGES = ["prepare", "recommender", "sft", "align"]
EVALUATIONS = [
    *(f"evaluate-{name}" for name in ("random", "popularity", "markov-chain", "item-knn")),
    "evaluate-sasrec",
    "evaluate",
    "fuse-without",
    "fuse",
]
VALUES = {
    "title": "Test",
    "model": "tiny-random",
    "prepare": {"interactions": "a.inter", "items": "a.item"},
    "evaluate": {"max_rows": 8, "seed": 3, "engine": {"engines": 2}},
    "expected_minutes": {"sft": 1, "align": 2, "evaluate": 3},
}


class Recorder:
    """An Observer that records its calls."""

    def __init__(self):
        self.calls = []

    @contextmanager
    def running(self, stage, expected, seconds_after):
        self.calls.append(("running", stage, expected, seconds_after))
        yield lambda done, total, note="": self.calls.append((stage, done, total))

    def finished(self, stage, folder, seconds):
        assert seconds >= 0
        self.calls.append(("finished", stage, folder.name))

    def found(self, stage, folder):
        self.calls.append(("found", stage, folder.name))

    def names(self, call):
        return [one[1] for one in self.calls if one[0] == call]


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """The configurations that stages are run with; each only leaves its last file."""
    monkeypatch.chdir(tmp_path)
    configurations = []

    def leave(*files):
        def action(config, progress):
            configurations.append(config)
            progress(1, 2)
            for file in files:
                (config.output / file).parent.mkdir(parents=True, exist_ok=True)
                (config.output / file).write_text(json.dumps({"kind": "sasrec"}))

        return action

    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    monkeypatch.setattr(pipeline_stages, "resolve_model", lambda name: model)
    monkeypatch.setattr(pipeline_stages, "prepare", leave("dataset.json"))
    monkeypatch.setattr(pipeline_stages, "train_recommender", leave("summary.json", "model.json"))
    monkeypatch.setattr(pipeline_stages, "train", leave("summary.json"))
    evaluated = leave("metrics.json", "aligned/metrics.json", "policy/metrics.json")
    monkeypatch.setattr(pipeline_stages, "evaluate", evaluated)
    monkeypatch.setattr(pipeline_stages, "fuse", leave("fusion.json"))
    monkeypatch.setattr(
        pipeline, "read_run", lambda name, *_: SimpleNamespace(name=name, metrics={})
    )
    monkeypatch.setattr(pipeline, "load_dataset", lambda folder: None)
    monkeypatch.setattr(pipeline, "write_files", lambda *_: [])
    return configurations


def run(tmp_path, observer=None, **changed):
    values = VALUES | {"output": tmp_path / "run"} | changed
    return pipeline.run_pipeline(parse_config(PipelineConfig, values, "test"), observer)


def test_an_observer_receives_every_stage_in_order(ran, tmp_path):
    observer = Recorder()
    outcome = run(tmp_path, observer)
    assert observer.names("running") == observer.names("finished") == STAGES + EVALUATIONS
    assert observer.names("found") == []
    assert ("running", "sft", 60.0, 300.0) in observer.calls
    assert ("running", "recommender", None, 0.0) in observer.calls
    assert ("sft", 1, 2) in observer.calls
    names = [name for name, _ in outcome.runs]
    heuristics = ["Random", "Popularity", "Markov chain", "Item-kNN"]
    models = [*heuristics, "SASRec", "Base LLM", "SFT", "NAPO"]
    assert names == [*models, "Fused without LLM", "Fused with NAPO"]
    assert outcome.report == tmp_path / "run/report.html"


def test_a_second_run_finds_every_stage(ran, tmp_path):
    run(tmp_path)
    ran.clear()
    observer = Recorder()
    run(tmp_path, observer)
    assert observer.names("found") == STAGES + EVALUATIONS
    assert ran == []


def test_without_an_observer_nothing_is_printed(ran, tmp_path, capsys):
    run(tmp_path)
    assert capsys.readouterr() == ("", "")


def test_a_stage_gets_its_sections_settings_and_what_the_pipeline_sets(ran, tmp_path):
    run(tmp_path, seed=7, sft={"policy": {"lora": {"rank": 4}}}, align={"negatives": 5})
    prepared, recommender, sft, aligned = ran[:4]
    *baselines, policies, without, fused = ran[4:]
    assert prepared.interactions == (str(tmp_path / "a.inter"),)
    assert (sft.policy.lora.rank, sft.policy.model, sft.seed) == (4, "tiny-random", 7)
    assert {one.data for one in ran[1:]} == {prepared.output}
    assert aligned.policy.adapter == sft.output / "adapter"
    assert (aligned.recommender, aligned.negatives, aligned.seed) == (recommender.output, 5, 7)
    assert policies.adapters == {
        "base": None,
        "sft": sft.output / "adapter",
        "aligned": aligned.output / "adapter",
    }
    assert policies.engine.engines == 2
    assert set(without.runs) == {"Popularity", "Markov chain", "Item-kNN", "SASRec"}
    assert fused.runs == without.runs | {"NAPO": policies.output / "aligned"}
    # All models are evaluated on the same rows.
    assert {(one.max_rows, one.seed) for one in [*baselines, policies]} == {(8, 3)}


def folders(tmp_path):
    return {folder.name for folder in (tmp_path / "run").iterdir()}


def test_a_changed_setting_makes_new_folders_of_its_stage_and_those_after_it(ran, tmp_path):
    run(tmp_path)
    before = folders(tmp_path)
    run(tmp_path, align={"negatives": 5})
    new = folders(tmp_path) - before
    assert {name.rpartition("-")[0] for name in new} == {"align", "evaluate", "fuse"}


def test_a_folders_name_depends_on_explicit_settings_alone(ran, tmp_path):
    run(tmp_path)
    before = folders(tmp_path)
    run(tmp_path, sft={}, title="Another", expected_minutes={})
    assert folders(tmp_path) == before
    # A default that is given explicitly is a setting: it stays what it is if the default changes.
    run(tmp_path, sft={"epochs": 1})
    new = folders(tmp_path) - before
    assert {name.rpartition("-")[0] for name in new} == {"sft", "align", "evaluate", "fuse"}


def test_a_moved_pipeline_is_found(ran, tmp_path, monkeypatch):
    run(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").rename(tmp_path / "elsewhere/run")
    monkeypatch.chdir(tmp_path / "elsewhere")
    ran.clear()
    run(tmp_path / "elsewhere")
    assert ran == []


def test_settings_that_do_not_fit_together_are_an_error_before_the_first_stage(
    ran, tmp_path, monkeypatch
):
    def refuse(model, values, source):
        if source == "evaluate":
            raise InputError("evaluate: refused")
        return parse_config(model, values, source)

    monkeypatch.setattr(pipeline_stages, "parse_config", refuse)
    with pytest.raises(InputError, match="evaluate: refused"):
        run(tmp_path)
    assert ran == []


def test_hints_of_the_recommender_are_set_for_fine_tuning(ran, tmp_path):
    sources = ["recommender", "item-knn"]
    run(tmp_path, hints="rank", hint_sources=sources, hint_fusion=True)
    _, recommender, sft, aligned = ran[:4]
    assert recommender.folds.by == "time"  # hints at training rows are out of fold
    assert (sft.policy.hints, sft.policy.hint_fusion) == ("rank", True)
    assert sft.policy.hints_recommender == (recommender.output, "item-knn")
    # Later stages take them from the adapter.
    assert aligned.policy.hints is None


def test_no_fusion_where_it_is_left_out(ran, tmp_path):
    observer = Recorder()
    run(tmp_path, observer, fuse=None)
    assert observer.names("running") == (STAGES + EVALUATIONS)[:-2]
