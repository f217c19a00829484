"""The files of a search, written anew at every start and every end of a trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raypo.config import AlignConfig, TuneConfig, dump_config, parse_config
from raypo.evaluation.search_report.page import write_search_report
from raypo.evaluation.search_report.trials import Trial, best_trial, write_trials
from raypo.io.files import write_text
from raypo.io.remote import push_file
from raypo.orchestration.tuning.search_space import trial_values


def write_outputs(config: TuneConfig, trials: Sequence[Trial]) -> dict[str, Any]:
    """Write `trials.json`, `best.yaml` once there is a best trial, and `search.html`.

    Args:
        config: of the search.
        trials: in order, with their metrics.

    Returns:
        Content of `trials.json`.
    """
    folder = config.output
    content = write_trials(folder / "trials.json", trials, config.align.validation.max_rows)
    best = best_trial(trials)
    if best is not None:
        values = trial_values(config.align, best.settings, config.align.output)
        text = dump_config(parse_config(AlignConfig, values, source="best trial"))
        write_text(folder / "best.yaml", text)
    write_search_report(folder / "search.html", config, trials)
    for name in ("trials.json", "best.yaml", "search.html"):
        if (folder / name).exists():
            push_file(folder / name)
    return content
