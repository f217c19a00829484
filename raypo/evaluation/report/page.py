"""The report: one self-contained HTML page that compares models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from raypo.evaluation.breakdowns import QUINTILES
from raypo.evaluation.catalogue_metrics import popularity_quintiles
from raypo.evaluation.ranking import recommended
from raypo.evaluation.report.charts import Bars, bar_chart, line_chart
from raypo.evaluation.report.explorer import as_script, explorer_data
from raypo.evaluation.report.runs import ReportRun, beside_best, best_of, check_same_rows
from raypo.evaluation.report.table import columns_of, table_rows
from raypo.io.files import write_text

_CURVES = (
    ("loss", "Loss"),
    ("rewards/margin", "Reward margin"),
    ("rewards/accuracy", "Reward accuracy"),
    ("gamma", "Margin gamma"),
    ("validation/HitRatio@1", "Validation HitRatio@1"),
)
_WAYS = ("likelihood", "generate", "constrained")
_GREY = 6  # the page's last colour
_COLOURS = 6
_HitRatio = ("likelihood", "HitRatio@1")


def write_report(
    output: Path,
    title: str,
    runs: Sequence[ReportRun],
    titles: Sequence[str],
    popularity: np.ndarray,
    examples: int = 100,
    audit: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page, whole or not at all.

    Args:
        output: the HTML file.
        title: its heading.
        runs: models in the table's order.
        titles: title of item i at position i.
        popularity: occurrences of each item in the training sequences.
        examples: test users in the explorer.
        audit: of the data set, as `dataset.json` holds it.

    Raises:
        InputError: models that were evaluated on different rows or candidates.
    """
    check_same_rows(runs)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(resource("report.html.j2"))
    answered = [run for run in runs if run.predictions is not None]
    named = [(run.name, run.metrics) for run in runs]
    page = template.render(
        title=title,
        style=Markup(resource("report.css")),
        script=Markup(resource("report.js")),
        columns=columns_of(named),
        rows=_marked_rows(runs),
        rules=_rule_rows(audit, columns_of(named)),
        comparisons=_comparisons(runs),
        breakdowns=_breakdowns(runs),
        popularity=_popularity_charts(answered, popularity),
        calibration=_calibration(runs),
        training=_training_curves(runs),
        costs=_costs(runs),
        checks=_checks(runs),
        audit=audit,
        explorer=as_script(explorer_data(answered, titles, examples)),
        generated=max((run.metrics.get("generate", {}).get("n", 0) for run in runs), default=0),
        users=len(answered[0].predictions) if answered else 0,  # type: ignore[arg-type]
    )
    write_text(output, page)
    return output


def resource(name: str, package: str = __package__) -> str:
    """Text of a package's file: a page's template, style or script."""
    return resources.files(package).joinpath(name).read_text("utf-8")


def _marked_rows(runs: Sequence[ReportRun]) -> list[list[str]]:
    """The table's rows; what is surely below the best by likelihood is marked."""
    rows = table_rows([(run.name, run.metrics) for run in runs])
    compared = beside_best(runs, "likelihood")
    place = 1 + columns_of([(run.name, run.metrics) for run in runs]).index(_HitRatio)
    for run, row in zip(runs, rows, strict=True):
        if run.name in compared and compared[run.name].significant:
            row[place] += " \N{DAGGER}"
    return rows


def _rule_rows(
    audit: Mapping[str, Any] | None, columns: Sequence[tuple[str, str]]
) -> list[tuple[bool, list[str]]]:
    """The audit's rules as rows of the table: whether blind, and cells."""
    if audit is None:
        return []
    rows = []
    for rule in audit.get("heuristics") or audit["rules"]:
        score = f"{rule['hit_ratio']:.3f} [{rule['low']:.3f}, {rule['high']:.3f}]"
        cells = [score if column == _HitRatio else "" for column in columns]
        non_personalised = rule.get("blind", not rule.get("baseline", False))
        rows.append((bool(non_personalised), [rule["name"], *cells]))
    return rows


def _comparisons(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    """Per way of answering, every model beside the best."""
    tables = []
    for way in _WAYS:
        compared = beside_best(runs, way)
        best = best_of(runs, way)
        if compared and best is not None:
            tables.append({"way": way, "best": best.name, "rows": list(compared.items())})
    return tables


def _training_curves(runs: Sequence[ReportRun]) -> list[tuple[str, list[tuple[str, Markup]]]]:
    """Per trained model its charts, (heading, chart)."""
    trained = []
    for run in runs:
        charts = []
        for key, heading in _CURVES:
            points = [(line["step"], line[key]) for line in run.training if key in line]
            if points:
                charts.append((heading, line_chart([(heading, points)])))
        if charts:
            trained.append((run.name, charts))
    return trained


def _breakdowns(runs: Sequence[ReportRun]) -> list[tuple[str, Markup]]:
    """HitRatio@1 by popularity of the target and by length of the history."""
    charts = []
    for way in _WAYS:
        own = [
            (colour, run)
            for colour, run in enumerate(runs)
            if "breakdowns" in run.metrics.get(way, {})
        ]
        if not own:
            continue
        for what, parts in own[0][1].metrics[way]["breakdowns"].items():
            groups = [part["group"] for part in parts]
            series = [
                Bars(
                    run.name,
                    [part["HitRatio@1"] for part in run.metrics[way]["breakdowns"][what]],
                    colour % _COLOURS,
                )
                for colour, run in own
            ]
            counts = ", ".join(f"{part['group']}: {part['n']}" for part in parts)
            heading = f"{way}, by {what} (rows {counts})"
            charts.append((heading, _with_legend(groups, series)))
    return charts


def _popularity_charts(
    runs: Sequence[ReportRun], popularity: np.ndarray
) -> list[tuple[str, Markup]]:
    """Per way of answering: what share of recommendations falls into each popularity quintile."""
    quintile = popularity_quintiles(popularity)
    charts = []
    for way in _WAYS:
        series = []
        for colour, run in enumerate(runs):  # a model keeps its colour from chart to chart
            if way in run.metrics and run.predictions is not None:
                shares = _shares(quintile[recommended(run.predictions, way, run.length_normalised)])
                series.append(Bars(run.name, shares, colour % _COLOURS))
        if series:
            targets = runs[0].predictions["target"].to_numpy()  # type: ignore[index]
            series.append(Bars("what users chose", _shares(quintile[targets]), _GREY))
            charts.append((way, _with_legend(QUINTILES, series)))
    return charts


def _with_legend(groups: Sequence[str], series: Sequence[Bars]) -> Markup:
    keys = Markup("").join(
        Markup('<span class="key"><i class="c{}"></i>{}</span>').format(bars.colour, bars.name)
        for bars in series
    )
    return bar_chart(groups, series) + Markup('<div class="legend">{}</div>').format(keys)


def _calibration(runs: Sequence[ReportRun]) -> list[tuple[str, float, Markup]]:
    """Per model its calibration error and its reliability curve."""
    charts = []
    for run in runs:
        metrics = run.metrics.get("likelihood", {})
        bins = metrics.get("calibration")
        if bins:
            curve = [(confidence, ratio) for confidence, ratio, _ in bins]
            diagonal = [(confidence, confidence) for confidence, _, _ in bins]
            lines = [("hit ratio", curve), ("perfect", diagonal)]
            chart = line_chart(lines, x_label="confidence")
            charts.append((run.name, metrics["CalibrationError"], chart))
    return charts


def _shares(quintiles: np.ndarray) -> list[float]:
    counts = np.bincount(quintiles, minlength=5)
    shares: list[float] = (counts / max(1, counts.sum())).tolist()
    return shares


def _costs(runs: Sequence[ReportRun]) -> list[list[str]]:
    """What training and answering took: one row a model."""
    rows = []
    for run in runs:
        lines = [line for line in run.training if "tokens_per_second" in line]
        seconds = sum(line.get("seconds", 0.0) for line in lines)
        speed = np.median([line["tokens_per_second"] for line in lines]) if lines else None
        memory = max((line.get("peak_memory_gib", 0.0) for line in lines), default=0.0)
        cost = run.about.get("cost", {})
        answering = [
            f"{way}: {one['answers_per_second']:.2f}/s"
            for way, one in cost.items()
            if one.get("answers_per_second")
        ]
        tokens = [
            f"{way}: {one['prompt_tokens']:.0f} + {one['answer_tokens']:.0f}"
            for way, one in cost.items()
        ]
        if lines or cost:
            rows.append(
                [
                    run.name,
                    f"{len(lines)} steps, {seconds / 60:.1f} min" if lines else "",
                    f"{speed:.0f}" if speed is not None else "",
                    f"{memory:.1f}" if memory else "",
                    "; ".join(answering),
                    "; ".join(tokens),
                ]
            )
    return rows


def _checks(runs: Sequence[ReportRun]) -> list[str]:
    """Sentences on the engines' answers, other orders, and prompts that were cut."""
    told = []
    for run in runs:
        check = run.about.get("greedy_check")
        if check:
            told.append(
                f"{run.name}: {check['same']} of {check['rows']} generated answers equal the "
                "policy's own greedy decoding."
            )
        ranked = run.metrics.get("likelihood", {})
        orders = ranked.get("permutations") or ranked.get("orders")  # of an earlier version
        if orders:
            ratios = ", ".join(f"{ratio:.3f}" for ratio in orders["HitRatio@1"])
            told.append(
                f"{run.name}: HitRatio@1 under other orders of the candidates {ratios}; the same "
                f"candidate comes first under all of them in {orders['same first']:.1%} of rows."
            )
        if run.about.get("cut_prompts"):
            told.append(f"{run.name}: {run.about['cut_prompts']} prompts were cut to fit.")
    return told
