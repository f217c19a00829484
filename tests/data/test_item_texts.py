"""Texts of items: the template, what is left of empty fields, and what prompts show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypo.assets import tiny_random
from raypo.config import PolicyConfig, PrepareConfig
from raypo.data.dataset import load_training_data
from raypo.data.item_texts import item_texts, text_fields
from raypo.data.prepare import dataset_key
from raypo.data.tokenisation import Encoder, load_tokenizer, make_encoder
from raypo.errors import InputError
from tests.data.logs import prepared

MakeConfig = Callable[..., PrepareConfig]
TEXT = "{title} ({year}, {genres})"


@pytest.mark.parametrize(
    ("year", "genres", "expected"),
    [
        ("1995", "Crime|Drama", "Heat (1995, Crime|Drama)"),
        ("", "Crime", "Heat (Crime)"),
        ("1995", " ", "Heat (1995)"),
        ("", "", "Heat"),
        ("19\n95", "{odd}", "Heat (19 95, {odd})"),
    ],
)
def test_punctuation_around_empty_fields_is_left_out(year: str, genres: str, expected: str) -> None:
    assert item_texts(TEXT, ["Heat"], {"year": [year], "genres": [genres]}) == [expected]


@given(title=st.text(min_size=1), year=st.text(), genres=st.text())
def test_a_text_begins_with_the_title_as_it_is(title: str, year: str, genres: str) -> None:
    (text,) = item_texts(TEXT, [title], {"year": [year], "genres": [genres]})
    assert text.startswith(title)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{genres}: {title}", "begin with {title}"),
        ("{title} or {title} {year}", "have it once"),
        ("{title}", "columns of the item files"),
        ("{title} {}", "columns of the item files"),
        ("{title} {year!r}", "conversion or format"),
        ("{title} {year:>9}", "conversion or format"),
        ("{title} {year", "double a brace"),
    ],
)
def test_other_templates_are_refused(template: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        text_fields(template)


def test_a_prepared_data_set_holds_texts(make_config: MakeConfig) -> None:
    config = make_config(item_text="{title} <{release_year}>")
    data = prepared(config)
    assert data.titles[3] == "The Film 1 (1981)"
    assert data.texts[3] == "The Film 1 (1981) <1981>"
    assert load_training_data(config.output, 4, 0).given_texts == data.texts
    other = make_config(item_text="{title} {release_year}")
    assert len({dataset_key(one) for one in (config, other, make_config())}) == 3


def test_without_a_template_texts_are_titles(make_config: MakeConfig) -> None:
    data = prepared(make_config())
    assert data.given_texts is None
    assert data.texts == data.titles


def test_a_column_that_items_lack_is_named(make_config: MakeConfig) -> None:
    with pytest.raises(InputError, match=r"log\.item.*genres"):
        prepared(make_config(item_text="{title} ({genres})"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_random(tmp_path_factory.mktemp("cache"))


def test_prompts_show_texts_and_answers_are_titles(model: Path) -> None:
    titles, texts = ["Heat", "Fargo", "Alien"], ["Heat (Crime)", "Fargo (Dark)", "Alien (Space)"]
    policy = PolicyConfig(item_text=True)
    encoder = make_encoder(policy, model, titles, texts=texts)
    plain = make_encoder(policy.model_copy(update={"item_text": False}), model, titles, texts=texts)
    shown, short = (one.decode(one.prompt([0], [2, 1])) for one in (encoder, plain))
    assert "oldest first: Heat (Crime)\n" in shown
    assert "- Alien (Space)\n- Fargo (Dark)\n" in shown
    assert "(" not in short.replace("next?", "")
    assert encoder.response(2) == plain.response(2)


def test_a_pointwise_template_shows_the_text_of_its_candidate(model: Path) -> None:
    encoder = Encoder(load_tokenizer(model), "{history} then {candidate}?\nAnswer:", ["Heat"])
    yes, _ = replace(encoder, texts=["Heat (Crime)"]).answers(0)
    assert encoder.decode(yes).startswith(" Heat (Crime)?")


def test_texts_that_a_data_set_lacks_cannot_be_shown(model: Path) -> None:
    with pytest.raises(InputError, match="prepare it with item_text"):
        make_encoder(PolicyConfig(item_text=True), model, ["Heat"])
