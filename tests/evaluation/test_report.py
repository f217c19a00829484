"""The report: whole, self-contained, and safe with any title."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd

from raypo.evaluation.metrics import summarise
from raypo.evaluation.predictions import empty_predictions, read_predictions, write_predictions
from raypo.evaluation.report import ReportRun, popularity_quintiles, write_report

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
    metrics = summarise(predictions, POPULARITY, resamples=20, seed=0)
    return ReportRun(name, metrics, predictions, training if generates else [])


class Balanced(HTMLParser):
    """Fails on a tag that is closed without having been opened."""

    VOID = ("meta", "br", "rect", "path", "polyline", "circle")

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
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search(r"""(src|href)\s*=|url\(|@import|https?://""", page)
    for text in ("A &amp; B", "Popularity", "NAPO", "موج", "failed: engine died"):
        assert text in page
    assert page.count("<svg") >= 5


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
    assert page.count("failed:") == 1
    assert "failed: engine died" in page
    assert "nan" not in page


def test_quintiles_divide_the_catalogue_by_rank():
    assert popularity_quintiles(POPULARITY).tolist() == [0, 1, 3, 4, 2]
