"""The report: whole, self-contained, and safe with any title."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from raypo.config import InputError
from raypo.evaluation.catalogue_metrics import popularity_quintiles
from raypo.evaluation.intervals import Resampling
from raypo.evaluation.predictions import empty_predictions, read_predictions, write_predictions
from raypo.evaluation.report.page import write_report
from raypo.evaluation.report.runs import (
    ReportRun,
    beside_best,
    check_same_rows,
    data_of,
    find_runs,
)
from raypo.evaluation.report.table import latex_table
from raypo.evaluation.summary import MetricOptions, summarise
from tests.evaluation.browser import CHROMIUM, what_is_seen

TITLES = ["<script>alert(1)</script>", "Amélie & Co", "Heat", "موج", "Alien"]
POPULARITY = np.array([0, 1, 3, 7, 2])


def a_run(name: str, generates: bool) -> ReportRun:
    rows = pd.DataFrame(
        {
            "row": range(3),
            "user_id": range(3),
            "history": [[0, 1]] * 3,
            "target": [2] * 3,
            "candidates": [[2, 3, 4]] * 3,
        }
    )
    predictions = empty_predictions(rows)
    predictions["logps"] = [[-1.0, -2.0, -3.0]] * 3
    if generates:
        predictions["answer"] = ["Heat", "<b>no</b>", None]
        predictions["error"] = [None, None, "engine died"]
        predictions["answer_item"] = pd.array([2, None, None], dtype="Int64")
    training = [
        {"step": 1, "loss": 2.0, "gamma": 1.0},
        {"step": 2, "loss": 1.5, "gamma": 1.1, "validation/HitRatio@1": 0.2},
    ]
    metrics = summarise(predictions, POPULARITY, MetricOptions(Resampling(20, 0)))
    return ReportRun(name, metrics, predictions, training if generates else [])


class Balanced(HTMLParser):
    """Fails on a tag that is closed without having been opened."""

    VOID = ("meta", "br", "rect", "path", "polyline", "circle", "input")

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_self_contained_and_escaped(tmp_path):
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
    assert [place for place, _, _ in popularity["ranking"]] == [0, 1, 2]
    assert popularity["ranking"][0][2] == pytest.approx(0.6652, abs=1e-4)
    assert napo["generated"] == {"text": "Heat", "right": True}
    assert data["rows"][1]["models"][1]["generated"] == {"text": "<b>no</b>", "right": False}
    assert data["rows"][2]["models"][1]["error"] == "engine died"


def test_the_audit_stands_beside_the_models(tmp_path):
    rule = {"name": "next <by id>", "blind": True, "hit_ratio": 0.5, "low": 0.4, "high": 0.6}
    finding = {
        "severity": "severe", "what": "rows ascend", "count": 2, "of": 3, "examples": (),
        "advice": "report it",
    }  # fmt: skip
    audit = {"rules": [rule], "findings": [finding], "rows": 3, "candidates": 5}
    runs = [a_run("NAPO", generates=True)]
    page = write_report(
        tmp_path / "report.html", "A", runs, TITLES, POPULARITY, audit=audit
    ).read_text()
    for text in (
        "next &lt;by id&gt;",
        "0.500",
        "[0.400, 0.600]",
        "rows ascend (2 of 3); report it.",
    ):
        assert text in page


def test_answers_read_back_from_a_file_are_shown_as_they_were(tmp_path):
    run = a_run("NAPO", generates=True)
    write_predictions(tmp_path, run.predictions)
    read = replace(run, predictions=read_predictions(tmp_path))
    page = write_report(tmp_path / "report.html", "A", [read], TITLES, POPULARITY).read_text()
    assert page.count("engine died") == 1
    assert "NaN" not in page


def test_quintiles_divide_the_catalogue_by_rank():
    assert popularity_quintiles(POPULARITY).tolist() == [0, 1, 3, 4, 2]


def test_models_that_answered_other_questions_are_not_compared(tmp_path):
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


def test_what_is_surely_below_the_best_is_marked(tmp_path):
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
        return ReportRun(
            name,
            summarise(predictions, POPULARITY, MetricOptions(Resampling(20, 0))),
            predictions,
            [],
        )

    right, wrong = [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]
    runs = [
        scored("good", [right] * 40),
        scored("bad", [wrong] * 20 + [right] * 20),
        scored("close", [wrong] + [right] * 39),
    ]
    compared = beside_best(runs, "likelihood")
    assert compared["bad"].significant and not compared["close"].significant
    assert compared["bad"].p_value == pytest.approx(2 * 0.5**20)
    page = write_report(tmp_path / "r.html", "A", runs, TITLES, POPULARITY).read_text()
    marked = [line for line in page.splitlines() if "\N{DAGGER}</small>" in line]
    assert len(marked) == 1 and ">bad<" in marked[0]


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
  document.getElementById("who").textContent, document.querySelectorAll("#models .card").length]);
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
set("which", "disagree", "change");
set("which", "all-wrong", "change");
document.body.innerHTML = "<pre id=seen></pre>";
document.getElementById("seen").textContent = JSON.stringify(seen);
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_explorer_works_in_a_browser(tmp_path):
    runs = [a_run("Popularity", generates=False), a_run("NAPO", generates=True)]
    runs[1].predictions.at[1, "logps"] = [-3.0, -2.0, -1.0]  # they disagree about user 1
    page = write_report(tmp_path / "report.html", "A", runs, TITLES, POPULARITY).read_text()
    seen = what_is_seen(page, CLICKS, tmp_path)
    counts = [count for count, _, _ in seen]
    assert counts == [
        "user 1 of 3", "user 2 of 3", "user 1 of 3", "user 3 of 3",
        "user 1 of 3", "no user matches", "user 1 of 3", "user 1 of 1", "no user matches",
    ]  # fmt: skip
    assert seen[0][1:] == ["User 0: next was Heat", 2]
    assert seen[7][1] == "User 1: next was Heat"
