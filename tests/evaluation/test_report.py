"""The report: complete, self-contained, and safe with any title."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raypo.errors import InputError
from raypo.evaluation.catalogue_metrics import popularity_quintiles
from raypo.evaluation.intervals import Resampling
from raypo.evaluation.predictions import empty_predictions, read_predictions, write_predictions
from raypo.evaluation.report.comparisons import check_same_rows, compare_with_best
from raypo.evaluation.report.figures import popularity_figures
from raypo.evaluation.report.notes import remarks
from raypo.evaluation.report.page import write_report
from raypo.evaluation.report.runs import ReportRun, data_of, find_runs, read_run
from raypo.evaluation.report.table import latex_table
from raypo.evaluation.summary import MetricOptions, summarise
from raypo.io.files import write_json
from tests.evaluation.browser import CHROMIUM, run_in_browser

TITLES = ["<script>alert(1)</script>", "Amélie & Co", "Heat", "موج", "Alien"]
POPULARITY = np.array([0, 1, 3, 7, 2])
OPTIONS = MetricOptions(Resampling(20, 0))


def unanswered(num_rows: int) -> pd.DataFrame:
    """Predictions of equal test rows, without answers."""
    rows = pd.DataFrame(
        {
            "row": range(num_rows),
            "user_id": range(num_rows),
            "history": [[0, 1]] * num_rows,
            "target": [2] * num_rows,
            "candidates": [[2, 3, 4]] * num_rows,
        }
    )
    return empty_predictions(rows)


def a_run(name: str, generates: bool) -> ReportRun:
    predictions = unanswered(3)
    predictions["logps"] = [[-1.0, -2.0, -3.0]] * 3
    if generates:
        predictions["answer"] = ["Heat", "<b>no</b>", None]
        predictions["error"] = [None, None, "engine died"]
        predictions["answer_item"] = pd.array([2, None, None], dtype="Int64")
    training = [
        {"step": 1, "loss": 2.0, "gamma": 1.0},
        {"step": 2, "loss": 1.5, "gamma": 1.1, "validation/HitRatio@1": 0.2},
    ]
    metrics = summarise(predictions, POPULARITY, OPTIONS)
    return ReportRun(name, metrics, predictions, training if generates else [])


class Balanced(HTMLParser):
    """Fails on a tag that is closed without having been opened."""

    VOID = ("meta", "br", "path", "polyline", "circle", "input")

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_complete_self_contained_and_escaped(tmp_path):
    runs = [a_run("Popularity", generates=False), a_run("NAPO", generates=True)]
    page = write_report(tmp_path / "report.html", "A & B", runs, TITLES, POPULARITY).read_text()
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert page.count("<script") == 2  # the explorer's data and its code
    assert "alert(1)</script>" not in page
    assert not re.search(r"""(src|href)\s*=|url\(|@import|https?://""", page)
    for text in ("A &amp; B", "Popularity", "NAPO", "موج", "engine died"):
        assert text in page
    assert page.count("<svg") >= 5


def explorer_of(page: str) -> dict:
    found = re.search(r'id="explorer-data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])


def test_the_explorer_holds_every_ranking_and_answer(tmp_path):
    runs = [a_run("Popularity", generates=False), a_run("NAPO", generates=True)]
    page = write_report(tmp_path / "report.html", "A", runs, TITLES, POPULARITY).read_text()
    data = explorer_of(page)
    assert data["titles"]["0"] == TITLES[0]
    row = data["rows"][0]
    assert (row["user"], row["history"], row["candidates"], row["target"]) == (
        0,
        [0, 1],
        [2, 3, 4],
        2,
    )
    popularity, napo = row["models"]
    assert [position for position, _, _ in popularity["ranking"]] == [0, 1, 2]
    assert popularity["ranking"][0][2] == pytest.approx(0.6652, abs=1e-4)
    assert napo["generated"] == {"text": "Heat", "correct": True}
    assert data["rows"][1]["models"][1]["generated"] == {"text": "<b>no</b>", "correct": False}
    assert data["rows"][2]["models"][1]["error"] == "engine died"


@pytest.mark.parametrize(
    ("key", "kind"), [("rules", {"blind": True}), ("heuristics", {"baseline": False})]
)
def test_heuristic_baselines_are_in_the_leaderboard(tmp_path, key, kind):
    heuristic = {"name": "next <by id>", "hit_ratio": 0.5, "low": 0.4, "high": 0.6} | kind
    finding = {
        "severity": "severe", "what": "rows ascend", "count": 2, "of": 3, "examples": (),
        "advice": "report it",
    }  # fmt: skip
    audit = {key: [heuristic], "findings": [finding], "rows": 3, "candidates": 5}
    runs = [a_run("NAPO", generates=True)]
    page = write_report(
        tmp_path / "report.html", "A", runs, TITLES, POPULARITY, audit=audit
    ).read_text()
    for text in (
        "next &lt;by id&gt;",
        "0.500",
        "[0.400, 0.600]",
        ">non-personalised heuristic<",
        "rows ascend (2 of 3); report it.",
    ):
        assert text in page


def test_predictions_read_from_a_file_give_the_same_page(tmp_path):
    run = a_run("NAPO", generates=True)
    write_predictions(tmp_path, run.predictions)
    read = replace(run, predictions=read_predictions(tmp_path))
    page = write_report(tmp_path / "report.html", "A", [read], TITLES, POPULARITY).read_text()
    assert page.count("engine died") == 1
    assert "NaN" not in page


def test_quintiles_divide_the_catalogue_by_rank():
    assert popularity_quintiles(POPULARITY).tolist() == [0, 1, 3, 4, 2]


def test_models_evaluated_on_different_rows_are_not_compared(tmp_path):
    first, second = a_run("A", generates=False), a_run("B", generates=False)
    check_same_rows([first, second])
    other = second.predictions.assign(candidates=[[2, 4, 3]] * 3)
    with pytest.raises(InputError, match="A and B were evaluated on different rows"):
        write_report(
            tmp_path / "x.html",
            "A",
            [first, replace(second, predictions=other)],
            TITLES,
            POPULARITY,
        )


def test_models_significantly_below_the_best_are_marked(tmp_path):
    def scored(name: str, logps: list[list[float]]) -> ReportRun:
        rows = pd.DataFrame(
            {
                "row": range(40),
                "user_id": range(40),
                "history": [[0, 1]] * 40,
                "target": [2] * 40,
                "candidates": [[2, 3, 4]] * 40,
            }
        )
        predictions = empty_predictions(rows)
        predictions["logps"] = logps
        return ReportRun(name, summarise(predictions, POPULARITY, OPTIONS), predictions, [])

    right, wrong = [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]
    runs = [
        scored("good", [right] * 40),
        scored("bad", [wrong] * 20 + [right] * 20),
        scored("close", [wrong] + [right] * 39),
    ]
    compared = compare_with_best(runs, "likelihood")
    assert compared["bad"].significant and not compared["close"].significant
    assert compared["bad"].p_value == pytest.approx(2 * 0.5**20)
    page = write_report(tmp_path / "r.html", "A", runs, TITLES, POPULARITY).read_text()
    marked = [line for line in page.splitlines() if "\N{DAGGER}</small>" in line]
    assert len(marked) == 1 and ">bad<" in marked[0]


def length_normalised_run(folder: Path) -> ReportRun:
    """Evaluated per token, read back from its files: log-probs alone would rank the target last."""
    predictions = unanswered(40)
    predictions["logps"] = [[-8.0, -4.0, -3.0]] * 40
    predictions["lengths"] = [[8, 2, 1]] * 40  # per token -1, -2 and -3
    metrics = summarise(predictions, POPULARITY, replace(OPTIONS, length_normalised=True))
    folder.mkdir()
    write_predictions(folder, predictions)
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "evaluated.json", {"length_normalised": True})
    return read_run("per token", folder)


def test_every_part_of_the_page_ranks_by_the_scores_of_metrics_json(tmp_path):
    run = length_normalised_run(tmp_path / "run")
    assert run.predictions is not None
    assert run.metrics["likelihood"]["HitRatio@1"] == 1
    other = run.predictions.assign(
        logps=[[-1.0, -2.0, -3.0]] * 20 + [[-3.0, -2.0, -1.0]] * 20, lengths=None
    )
    metrics = summarise(other, POPULARITY, OPTIONS)
    runs = [run, ReportRun("half right", metrics, other, [])]
    compared = compare_with_best(runs, "likelihood")["half right"]
    assert (compared.only_first, compared.only_second) == (0, 20)
    assert compared.difference == pytest.approx(-0.5)
    file = write_report(tmp_path / "report.html", "A", runs, TITLES, POPULARITY)
    page = file.read_text(encoding="utf-8")
    ranking = explorer_of(page)["rows"][0]["models"][0]["ranking"]
    assert [[position, score] for position, score, _ in ranking] == [[0, -1], [1, -2], [2, -3]]
    (shown,) = popularity_figures([run], POPULARITY)
    # Item 2, the target, is of the 4th quintile of popularity; so is every recommendation.
    assert shown.chart.count("<title>per token: 1.000</title>") == 1
    assert "<title>per token: 1.000</title></rect>" in shown.chart.split("what users chose")[0]
    assert "per token: candidates are ranked by log-probability per token." in page


def test_evaluations_of_earlier_versions_are_not_length_normalised():
    assert not a_run("A", generates=False).length_normalised


def test_a_model_has_the_same_colour_everywhere(tmp_path):
    runs = [
        replace(a_run(f"model {index}", generates=index in (2, 5)), training=[])
        for index in range(8)
    ]
    runs[3] = replace(runs[3], predictions=None)  # left out of charts, without moving the others
    curve = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]
    runs[5] = replace(runs[5], training=curve)
    page = write_report(tmp_path / "r.html", "A", runs, TITLES, POPULARITY).read_text()
    colours: dict[str, set[str]] = {}
    for css, name in re.findall(r'<i class="swatch (c\d)"></i><span>(.*?)</span>', page):
        colours.setdefault(name, set()).add(css)
    for css, name in re.findall(r'<g class="(c\d)">(?:<rect [^>]*>)<title>(.*?): ', page):
        colours.setdefault(name, set()).add(css)
    for model in explorer_of(page)["rows"][0]["models"]:
        colours[model["name"]].add(model["css"])
    assert colours == {f"model {index}": {f"c{index}"} for index in range(8)}
    training = page[page.index("<h2>Training</h2>") :]
    assert re.findall(r'<g class="(c\d)">', training) == ["c5"]


@pytest.mark.parametrize("key", ["permutations", "orders"])
def test_other_permutations_of_the_candidates_are_reported(key):
    run = a_run("A", generates=False)
    run.metrics["likelihood"][key] = {"HitRatio@1": [0.5, 0.25], "spread": 0.2, "same first": 0.4}
    assert remarks([run]) == [
        "A: HitRatio@1 under other permutations of the candidates: 0.500, 0.250; the same "
        "candidate ranks first under all of them in 40.0% of rows."
    ]


def test_a_greedy_check_says_how_many_agree_or_why_it_failed():
    run = a_run("A", generates=False)
    said = []
    for check in ({"rows": 2, "same": 1}, {"rows": 0, "same": 0, "error": "OutOfMemoryError: x"}):
        said += remarks([replace(run, evaluated={"greedy_check": check})])
    assert said == [
        "A: 1 of 2 generated answers equal the policy's own greedy decoding.",
        "A: the check of generated answers failed (OutOfMemoryError: x).",
    ]


def test_latex_is_escaped():
    table = latex_table([("A & B_1 50%", {})])
    assert r"A \& B\_1 50\% & -- & -- & -- & -- & -- \\" in table


def test_runs_are_found_in_folders_and_pipelines(tmp_path):
    for name in ("evaluate-random-1", "evaluate-2/base", "evaluate-2/sft"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text("{}")
    trained = tmp_path / "sft-9"
    trained.mkdir()
    (trained / "metrics.jsonl").write_text('{"step": 1}\n')
    config = f"data: {tmp_path}/data\nadapters: {{base: null, sft: {trained}/adapter}}\n"
    (tmp_path / "runs" / "evaluate-2" / "config.yaml").write_text(config)
    found = find_runs([str(tmp_path / "runs"), f"mine={tmp_path / 'runs' / 'evaluate-random-1'}"])
    assert [(name, training) for name, _, training in found] == [
        ("evaluate-random-1", None),
        ("base", None),
        ("sft", trained),
        ("mine", None),
    ]
    assert data_of(found[2][1]) == tmp_path / "data"
    with pytest.raises(InputError, match="no evaluated model there"):
        find_runs([str(trained)])


CLICKS = """
<script>
const seen = [];
const look = () => seen.push([document.getElementById("count").textContent,
  document.getElementById("target").textContent,
  document.querySelectorAll("#models .card").length]);
const set = (id, value, event) => {
  const element = document.getElementById(id);
  element.value = value;
  element.dispatchEvent(new Event(event));
  look();
};
look();
document.getElementById("next").click(); look();
document.getElementById("previous").click(); look();
document.getElementById("previous").click(); look();
set("search", "amélie", "input");
set("search", "nothing like it", "input");
set("search", "", "input");
set("filter", "disagree", "change");
set("filter", "all-wrong", "change");
document.body.innerHTML = "<pre id=seen></pre>";
document.getElementById("seen").textContent = JSON.stringify(seen);
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_explorer_works_in_a_browser(tmp_path):
    runs = [a_run("Popularity", generates=False), a_run("NAPO", generates=True)]
    runs[1].predictions.at[1, "logps"] = [-3.0, -2.0, -1.0]  # they disagree about user 1
    page = write_report(tmp_path / "report.html", "A", runs, TITLES, POPULARITY).read_text()
    seen = run_in_browser(page, CLICKS, tmp_path)
    counts = [count for count, _, _ in seen]
    assert counts == [
        "user 1 of 3", "user 2 of 3", "user 1 of 3", "user 3 of 3",
        "user 1 of 3", "no user matches", "user 1 of 3", "user 1 of 1", "no user matches",
    ]  # fmt: skip
    assert seen[0][1:] == ["User 0: the next item was Heat", 2]
    assert seen[7][1] == "User 1: the next item was Heat"
