"""Sources of negatives in a configuration, and what `raypo show align` says of them."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raypo import config as configs
from raypo.cli.main import app
from raypo.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
ALIGN = ROOT / "jobs/configs/align.yaml"


def align(*overrides):
    return configs.load_config(configs.AlignConfig, ALIGN, overrides)


def test_weights_become_probabilities():
    assert align().negative_sources == {"uniform": 1.0}
    assert align("negative_sampling=self-play").negative_sources == {"self-play": 1.0}
    mixed = align("negative_sampling={similar: 2, popular: 1, uniform: 1}")
    assert mixed.negative_sources == {"similar": 0.5, "popular": 0.25, "uniform": 0.25}
    again = align("negative_sampling={uniform: 1, similar: 2, popular: 1}")
    assert list(again.negative_sources.items()) == list(mixed.negative_sources.items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["negative_sampling=similiar"],
            "negative_sampling: 'similiar' is unknown; did you mean 'similar'?",
        ),
        (
            ["negative_sampling=xyz"],
            "negative_sampling: 'xyz' is unknown; known are uniform, popular, similar, "
            "recommender, self-play",
        ),
        (
            ["negative_sampling={similar: 1, uniform: 0}"],
            "negative_sampling: the weight of uniform must be a number above 0, got 0",
        ),
        (["negative_sampling={similar: -1}"], "weight of similar must be a number above 0, got -1"),
        (["negative_sampling={similar: .nan}"], "weight of similar must be a number above 0"),
        (["negative_sampling={popular: lots}"], "weight of popular must be a number above 0"),
        (["negative_sampling={}"], "negative_sampling: expected one of uniform, popular"),
        (["negative_sampling=3"], "negative_sampling: expected one of uniform, popular"),
        (
            ["recommender=null", "negative_sampling=recommender"],
            "recommender: negative_sampling recommender needs one; give its run folder",
        ),
        (
            ["recommender=null", "negative_sampling=similar", "negative_options.similarity=items"],
            "recommender: negative_sampling similar by item vectors needs one",
        ),
        (["negative_options.similar_temperature=-1"], "negative_options.similar_temperature: "),
        (["negative_options.self_play_rounds=0"], "negative_options.self_play_rounds: "),
        (
            ["negatives_from=catalogue", "negative_sampling=self-play"],
            "negatives_from: self-play scores the candidates alone",
        ),
    ],
)
def test_a_wrong_source_is_named(overrides, message):
    with pytest.raises(InputError) as caught:
        align(*overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "3 negatives each (uniform), shared"),
        (["negative_sampling={similar: 3, popular: 1}"], "each (popular 0.25, similar 0.75), "),
        (
            ["negative_sampling=self-play", "negative_options.self_play_rounds=2"],
            "each (self-play in 2 rounds), ",
        ),
        (
            ["negative_sampling=popular", "negatives_from=catalogue"],
            "each (popular, from the catalogue), ",
        ),
    ],
)
def test_show_says_where_negatives_come_from(overrides, message):
    overrides = ["negatives=3", *overrides]
    result = CliRunner().invoke(app, ["show", "align", "--config", str(ALIGN), *overrides])
    assert result.exit_code == 0
    assert message in re.sub(r"\s+", " ", result.output)
