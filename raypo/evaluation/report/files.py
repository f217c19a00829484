"""The files of a report: the HTML page, and its table in Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raypo.config.paths import local_path
from raypo.data.dataset import Dataset, load_dataset
from raypo.errors import InputError
from raypo.evaluation.report.catalogue import CatalogueRun, is_catalogue, read_catalogue_run
from raypo.evaluation.report.page import write_report
from raypo.evaluation.report.runs import ReportRun, data_of, find_runs, read_run
from raypo.evaluation.report.table import latex_table, markdown_table
from raypo.io.files import write_text
from raypo.io.remote import fetch, push_file


def report_on(
    given: Sequence[str], output: Path, title: str, data: Path | None = None
) -> list[Path]:
    """Write a report on evaluated models, wherever their folders are.

    Args:
        given: folders, or NAME=FOLDER, as `find_runs` takes them.
        output: the HTML file; the tables are written beside it.
        title: heading.
        data: prepared data set; None takes the one that the models were evaluated on.

    Returns:
        The files.

    Raises:
        InputError: a folder holds no evaluation, or models were evaluated on different rows.
    """
    for one in given:
        fetch(local_path(one.partition("=")[2] or one))
    found = find_runs(given)
    data = data or next((used for _, folder, _ in found if (used := data_of(folder))), None)
    if data is None:
        raise InputError(f"{found[0][1]}: does not name its data set; give --data FOLDER")
    fetch(data)
    of_catalogue = [read_catalogue_run(*one[:2]) for one in found if is_catalogue(one[1])]
    runs = [read_run(*one) for one in found if not is_catalogue(one[1])]
    return write_files(output, title, load_dataset(data), runs, of_catalogue)


def write_files(
    output: Path,
    title: str,
    dataset: Dataset,
    runs: Sequence[ReportRun],
    of_catalogue: Sequence[CatalogueRun] = (),
) -> list[Path]:
    """Write the page and both tables; push them where `output` is the copy of a URL.

    Args:
        output: the HTML file. Tables have its name, or `table` beside a `report.html`.
        title: heading.
        dataset: the data set that the models were evaluated on.
        runs: the models, in the table's order.
        of_catalogue: models that ranked the whole catalogue.

    Returns:
        The files.
    """
    popularity = dataset.items["popularity"].to_numpy()
    audit = dataset.info.get("audit")
    write_report(output, title, runs, dataset.titles, popularity, audit, of_catalogue)
    named = [(run.name, run.metrics) for run in runs]
    tables = {"md": markdown_table(named), "tex": latex_table(named)}
    files = [output]
    for suffix, table in tables.items():
        name = "table" if output.name == "report.html" else output.stem
        files.append(output.with_name(f"{name}.{suffix}"))
        write_text(files[-1], table + "\n")
    for file in files:
        push_file(file)
    return files
