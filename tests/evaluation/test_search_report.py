"""The page of a search: complete, self-contained, clear about collapses, usable in a browser."""

import re
from pathlib import Path

import pytest

from raypo.config import SearchRange, TuneConfig, parse_config
from raypo.evaluation.report.charts import Axis, axis_of, axis_over
from raypo.evaluation.search_report.page import write_search_report
from raypo.evaluation.search_report.trials import SCORE, Trial
from tests.evaluation.browser import CHROMIUM, run_in_browser
from tests.evaluation.test_report import Balanced

SPACE = {
    "objective.rho": {"low": 0, "high": 1},
    "optimiser.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
    "negatives": [15, 3, 7],
    "objective.selection": ["all", "boundary"],
}


def a_config(tmp_path):
    align = {
        "data": tmp_path / "films & <books>",
        "output": tmp_path,
        "policy": {"adapter": tmp_path},
        "validation": {"max_rows": 100},
    }
    values = {"align": align, "output": tmp_path / "search", "space": SPACE}
    return parse_config(TuneConfig, values, "test")


def a_trial(number, hits, losses, status="finished", error=None):
    settings = {
        "objective.rho": 0.25 * number,
        "optimiser.learning_rate": 10.0 ** (-5 + 0.5 * number),
        "negatives": (15, 3, 7)[number % 3],
        "objective.selection": "all",
    }
    lines = [
        {"step": 10 * (index + 1), "loss": loss, SCORE: hit}
        for index, (hit, loss) in enumerate(zip(hits, losses, strict=True))
    ]
    return Trial(number, settings, Path("/nowhere"), status, error, lines)


def trials():
    return [
        a_trial(0, [0.1, 0.2, 0.25], [3.0, 2.0, 1.5]),
        a_trial(1, [0.1, 0.15], [3.0, 2.5], "stopped"),
        a_trial(2, [0.3, 0.2, 0.05], [3.0, 1.0, 0.2]),
        a_trial(3, [], [], "failed", "step 1: the loss is <nan>"),
        a_trial(4, [], [], "running"),
    ]


def page_of(tmp_path, trials):
    return write_search_report(tmp_path / "search.html", a_config(tmp_path), trials).read_text()


def test_the_page_is_complete_self_contained_and_escaped(tmp_path):
    page = page_of(tmp_path, trials())
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"""(src|href)\s*=|url\(|@import|https?://""", page)
    assert page.count("<script") == 1
    for text in (
        "films &amp; &lt;books&gt;",
        "5 trials: 2 finished, 1 stopped, 1 failed, 1 running",
        "trial 3: step 1: the loss is &lt;nan&gt;",
        "Best: trial 2, objective.rho 0.5, optimiser.learning_rate 0.0001, negatives 7",
    ):
        assert text in page
    # Parallel coordinates, four sensitivities, two of training and two of the collapse.
    assert page.count("<svg") == 9


def test_the_page_says_whether_a_trial_collapsed(tmp_path):
    page = page_of(tmp_path, trials())
    assert "0.300 at step 10, then 0.050 at step 30; loss 3.000, then 0.200" in page
    assert "finished, collapsed" in page and 'id="no-collapse"' not in page
    page = page_of(tmp_path, trials()[:2])
    assert "No trial collapsed." in page and "finished, collapsed" not in page


def test_a_search_without_scores_has_a_page(tmp_path):
    for begun in ([], trials()[4:], trials()[3:4]):
        page = page_of(tmp_path, begun)
        assert "<svg" not in page and "Did any trial collapse?" in page


def classes_of(page, tag, trial):
    found = re.findall(rf'<{tag} class="([^"]*)" data-trial="{trial}"', page)
    return [set(classes.split()) for classes in found]


def test_every_scored_trial_is_in_every_chart(tmp_path):
    page = page_of(tmp_path, trials()[:2])
    for number, kinds in ((0, {"trial", "best"}), (1, {"trial", "unfinished"})):
        assert classes_of(page, "g", number) == [kinds] * 3  # parallel coordinates, two curves
        assert classes_of(page, "circle", number) == [kinds] * 4  # a dot per setting


def test_axes_map_values_to_positions():
    assert axis_of(SearchRange(low=0, high=2)).position(0.5) == 0.25
    log = axis_of(SearchRange(low=1e-5, high=1e-3, log=True))
    assert log.position(1e-4) == pytest.approx(0.5)
    assert [text for _, text in log.ticks()] == ["1e-05", "0.0001", "0.001"]
    listed = axis_of((15, 3, 7))
    assert listed.ticks() == [(1 / 6, "3"), (0.5, "7"), (5 / 6, "15")]
    words = axis_of(("s", "a"))
    assert words.position("s") < words.position("a")
    assert axis_over([0.07, 0.31]) == Axis(low=0.0, high=pytest.approx(0.4), step=0.1)
    labels = [label for _, label in axis_over([0.991, 1.009]).ticks()]
    assert labels == ["0.99", "0.995", "1", "1.005", "1.01"]
    assert axis_over([0, 2], min_step=1).ticks() == [(0, "0"), (0.5, "1"), (1, "2")]
    assert axis_over([0.0, 0.0]).position(0.0) == 0.0


# Point at a line, pin it by a click, sort the table, and write down what the page then shows.
ACTIONS = """
<script>
const seen = [];
const box = document.getElementById("selected");
const on = () => [...document.querySelectorAll("[data-trial].on")].map((one) => one.dataset.trial);
const look = () => seen.push([box.hidden, box.textContent, new Set(on()).size, on().length]);
const at = (selector) => document.querySelector(selector);
const fire = (element, type) => element.dispatchEvent(new PointerEvent(type, { bubbles: true }));
look();
fire(at('.parallel g[data-trial="1"] .hit-area'), "pointerover"); look();
fire(at("h1"), "pointerover"); look();
fire(at('circle[data-trial="2"]'), "click"); fire(at("h1"), "pointerover"); look();
fire(at('circle[data-trial="2"]'), "click"); look();
// As the keyboard's focus does; a window without focus would keep the event to itself.
at('tr[data-trial="0"]').dispatchEvent(new FocusEvent("focusin", { bubbles: true })); look();
at('tr[data-trial="0"]').dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true })); look();
document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true })); look();
const order = () => [...document.querySelectorAll("#trials tbody tr")].map((row) => row.dataset.trial).join("");
const rho = document.querySelectorAll("#trials th")[1];
const score = document.querySelectorAll("#trials th")[5];
seen.push(order()); fire(rho, "click"); seen.push(order()); fire(rho, "click"); seen.push(order());
fire(score, "click"); seen.push(order()); fire(score, "click"); seen.push(order());
document.body.innerHTML = "<pre id=seen></pre>";
document.getElementById("seen").textContent = JSON.stringify(seen);
</script>
"""  # noqa: E501


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_pointing_tapping_and_sorting_work_in_a_browser(tmp_path):
    page = page_of(tmp_path, trials())
    seen = run_in_browser(page, ACTIONS, tmp_path)
    start, pointed, away, pinned, unpinned, focused, kept, escaped = seen[:8]
    assert start[0] and away[0] and unpinned[0] and escaped[0]
    for state, words in (
        (pointed, "trial 1 · rho 0.25"),
        (pinned, "trial 2 · rho 0.5"),
        (focused, "trial 0 · rho 0"),
        (kept, "trial 0 · rho 0"),
    ):
        assert not state[0] and state[1].startswith(words) and state[2] == 1
    assert pointed[3] == 8  # its line, four dots, two curves, and its row
    # The best first; the largest rho first, then the smallest; what has no score stays last.
    assert seen[8:] == ["20134", "43210", "01234", "20134", "10234"]
