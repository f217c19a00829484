"""The presets in words, on the command line and in the documentation."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from raypo.cli.main import app
from raypo.objectives import available_objectives
from raypo.objectives.preset_docs import describe_preset, markdown_table

DOCS = Path(__file__).parents[2] / "docs" / "objectives.md"


def test_the_docs_table_is_the_code():
    assert markdown_table() in DOCS.read_text()


@pytest.mark.parametrize("name", available_objectives())
def test_every_preset_has_a_source_and_a_meaning_for_each_option(name):
    preset = describe_preset(name)
    assert preset.source
    assert preset.formula or name == "sft"
    assert all(option.meaning for option in preset.options)


def test_the_command_lists_and_shows():
    listed = CliRunner().invoke(app, ["objectives"], env={"COLUMNS": "140"})
    assert all(name in listed.stdout for name in available_objectives())
    shown = CliRunner().invoke(app, ["objectives", "napo"], env={"COLUMNS": "140"}).stdout
    for text in ("2508.09653", "gamma_batch", "negatives shared", "rho", "0.7"):
        assert text in shown
    shown = CliRunner().invoke(app, ["objectives", "rosepo"], env={"COLUMNS": "140"}).stdout
    assert "(batch, items [b, E]) -> eps [b, E]" in shown


def test_the_command_names_the_nearest_preset():
    result = CliRunner().invoke(app, ["objectives", "napoo"])
    assert str(result.exception) == "unknown objective 'napoo'; did you mean 'napo'?"
