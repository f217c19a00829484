"""What the command line prints of objectives, audits and searches."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from raypo.audit import Audit
from raypo.config import Paper
from raypo.data.readers.times import PER_SECOND
from raypo.data.statistics import statistics_table
from raypo.evaluation.memory import TITLES, MemoryFinding
from raypo.evaluation.search_report.trials import SCORE, format_value, short_names
from raypo.objectives import available_objectives
from raypo.objectives.preset_docs import describe_preset

CONVERTED = set(PER_SECOND) - {"seconds"}
_SPLITS = ("train", "validation", "test")
# Kinds of parts that most presets have: left out where space is short.
_COMMON_KINDS = {"own", "all", "fixed", "none", "logistic"}


def all_presets() -> Table:
    """Every preset with the parts that distinguish it, and its source."""
    table = Table("objective", "composition", "source", padding=(0, 1))
    for name in available_objectives():
        preset = describe_preset(name)
        kinds = [kind for kind in preset.parts.values() if kind not in _COMMON_KINDS]
        table.add_row(f"[bold]{name}[/]", " x ".join(kinds), escape(preset.source))
    return table


def one_preset(name: str) -> Group:
    """One preset: source, formula, composition, options with defaults.

    Raises:
        ValueError: unknown name.
    """
    preset = describe_preset(name)
    options = Table("option", "default", "meaning", box=None, padding=(0, 2, 0, 0))
    for option in preset.options:
        default = "" if option.default is None else str(option.default).lower()
        options.add_row(option.name, default, escape(option.meaning))
    parts = ", ".join(f"{part} {kind}" for part, kind in preset.parts.items())
    lines = [Text(preset.name, style="bold"), Text(preset.source)]
    if preset.formula:
        lines.append(Text("\n" + preset.formula))
    if parts:
        lines.append(Text("\n" + parts))
    return Group(*lines, Padding(options, (1, 0, 0, 0)) if preset.options else Text(""))


_COLOURS = {"severe": "bold red", "warning": "yellow", "note": "dim"}


def audited(audit: Audit) -> Group:
    """An audit: scores of heuristics, then findings with examples and advice."""
    scores = Table("heuristic", "", "HitRatio@1", "95% interval", padding=(0, 1))
    for one in audit.heuristics:
        kind = "baseline" if one.baseline else "non-personalised"
        interval = f"[{one.low:.3f}, {one.high:.3f}]"
        scores.add_row(one.name, kind, f"{one.hit_ratio:.3f}", Text(interval))
    drawn = ", of randomly drawn users" if audit.sampled else ""
    scores.caption = f"{audit.rows} test rows of {audit.candidates} candidates{drawn}"
    lines: list[Table | Text] = [scores]
    for finding in audit.findings:
        head = Text(f"\n{finding.severity}: ", style=_COLOURS[finding.severity])
        lines.append(head + Text(f"{finding.what} ({finding.count} of {finding.of})", style=""))
        lines += [Text(f"  {example}", style="dim") for example in finding.examples]
        lines.append(Text(f"  -> {finding.advice}"))
    if not audit.severe:
        lines.append(Text("\nnothing severe"))
    return Group(*lines)


def memory(model: str, findings: list[MemoryFinding]) -> Group:
    """What a model completes of a data set word for word, beside a synthetic one."""
    table = Table(
        "completed word for word", "questions", "data set", "synthetic", "difference",
        "log-prob of a token, difference", padding=(0, 1),
        title=f"what {model} remembers of the data set",
    )  # fmt: skip
    for one in findings:
        table.add_row(
            one.what,
            str(one.count),
            f"{one.exact:.3f}",
            f"{one.synthetic:.3f}",
            Text(f"{one.exact - one.synthetic:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"),
            Text(f"{one.logp_difference:+.2f} [{one.logp_low:+.2f}, {one.logp_high:+.2f}]"),
        )
    found = [one.what for one in findings if one.found]
    of_data_set = [what for what in found if what != TITLES]
    if of_data_set:
        verdict = (
            f"It completes {' and '.join(of_data_set)} more often than in a synthetic catalogue of "
            "the same shape: scores on this data set may be of memory."
        )
    elif found:
        verdict = (
            "It knows titles, which it may have read anywhere; it shows no memory of this data "
            "set's ids and rows."
        )
    else:
        verdict = "It completes nothing more often than in a synthetic catalogue of the same shape."
    return Group(table, Text(f"\n{verdict}"))


def statistics(info: dict[str, Any], paper: Paper | None) -> Table:
    """The size of a data set, with a paper's figures if one is named."""
    frame = statistics_table(info["counts"], paper)
    table = Table(*frame.columns, padding=(0, 1))
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row))
    options = info["options"]
    splits = ", ".join(f"{info['counts'][name]:,} {name}" for name in _SPLITS)
    table.caption = f"rows: {splits}; {options['candidates']} candidates"
    quarantined = info["counts"].get("quarantined")
    if quarantined:
        table.caption += f"; {quarantined:,} unusable rows in quarantine.jsonl"
    converted = [unit for unit in info.get("time_units") or {} if unit in CONVERTED]
    if converted:
        table.caption += f"; times in {', '.join(converted)}, converted to seconds"
    return table


def trials(content: dict[str, Any]) -> Group:
    """The trials of a search, best first, as in `trials.json`; then the errors of failed ones."""
    rows = sorted(content["trials"], key=lambda row: (-(row[SCORE] or -1.0), row["number"]))
    keys = list(rows[0]["settings"])
    columns = ("trial", *short_names(keys), "HitRatio@1", "at step", "loss", "status")
    table = Table(*columns, padding=(0, 1))
    best = content["best"]
    for row in rows:
        table.add_row(
            str(row["number"]),
            *(format_value(row["settings"][key]) for key in keys),
            "" if row[SCORE] is None else f"{row[SCORE]:.3f}",
            "" if row["best_step"] is None else str(row["best_step"]),
            "" if row["loss"] is None else f"{row['loss']:.3f}",
            row["status"] + (", collapsed" if row["collapse"] else ""),
            style="bold" if best and row["number"] == best["number"] else None,
        )
    table.caption = "HitRatio@1: best over a trial's validations; loss: at the last"
    failures = [
        Text(f"trial {row['number']} failed: {row['error']}", style="red")
        for row in rows
        if row["error"]
    ]
    return Group(table, *failures)
