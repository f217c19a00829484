"""Settings by dotted key."""

import pytest

from raypo.config import with_settings
from raypo.config.overrides import parse_override
from raypo.errors import InputError


def test_settings_are_replaced_and_added_and_the_values_given_stay_as_they_were():
    values = {"seed": 0, "optimiser": {"learning_rate": 1.0, "weight_decay": 0.1}}
    changed = with_settings(
        values, {"optimiser.learning_rate": 2.0, "policy.lora.rank": 4, "seed": 1}, "test"
    )
    assert changed == {
        "seed": 1,
        "optimiser": {"learning_rate": 2.0, "weight_decay": 0.1},
        "policy": {"lora": {"rank": 4}},
    }
    assert values == {"seed": 0, "optimiser": {"learning_rate": 1.0, "weight_decay": 0.1}}


def test_later_settings_win():
    assert with_settings({}, {"a": {"b": 1, "c": 2}, "a.b": 3}, "test") == {"a": {"b": 3, "c": 2}}


def test_an_empty_group_takes_settings():
    assert with_settings({"objective": None}, {"objective.rho": 0.2}, "test") == {
        "objective": {"rho": 0.2}
    }


def test_a_value_is_no_group():
    with pytest.raises(InputError, match=r"^space: seed\.x: seed is a value, not a group of setti"):
        with_settings({"seed": 0}, {"seed.x": 1}, "space")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("3", 3), ("null", None), ("true", True), ("[1, 2]", [1, 2]), ("a=b", "a=b")],
)
def test_values_are_read_as_yaml_and_numbers_as_people_write_them(text, value):
    assert parse_override(f"a.b={text}") == ("a.b", value)


@pytest.mark.parametrize("text", ["a", "=1", "a=[1"])
def test_what_is_no_override_is_refused(text):
    with pytest.raises(InputError, match=r"^override "):
        parse_override(text)
