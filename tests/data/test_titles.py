from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypo.data.titles import clean_title, display_titles


@pytest.mark.parametrize(
    ("title", "clean"),
    [
        ("Godfather, The", "The Godfather"),
        ("Christmas Carol, A", "A Christmas Carol"),
        ("American President, An", "An American President"),
        ("Haine, La", "La Haine"),
        ("Bossu, Le", "Le Bossu"),
        ("Misérables, Les", "Les Misérables"),
        ("Postino, Il", "Il Postino"),
        ("Mariachi, El", "El Mariachi"),
        ("Boot, Das", "Das Boot"),
        ("Himmel über Berlin, Der", "Der Himmel über Berlin"),
        ("Blechtrommel, Die", "Die Blechtrommel"),
        ("Avventura, L'", "L'Avventura"),
        (
            "City of Lost Children, The (Cité des enfants perdus, La)",
            "The City of Lost Children (La Cité des enfants perdus)",
        ),
        ("Star Maker, The (Uomo delle stelle, L')", "The Star Maker (L'Uomo delle stelle)"),
        ("Hate (Haine, La) (1995)", "Hate (La Haine) (1995)"),
        ("King and I, The", "The King and I"),
        ("Die xue shuang xiong (Killer, The)", "Die xue shuang xiong (The Killer)"),
        ("  Toy \t Story ", "Toy Story"),
    ],
)
def test_moved_articles_are_put_back(title: str, clean: str) -> None:
    assert clean_title(title) == clean


@pytest.mark.parametrize(
    "title",
    [
        "Paris, Texas",
        "Sex, Lies, and Videotape",
        "Bye Bye, Love",
        "Mrs. Brown (Her Majesty, Mrs. Brown)",
        "I, Worst of All (Yo, la peor de todas)",
        "Truth or Consequences, N.M.",
        "The Wrong Trousers",
        ", The",
        "Film (unclosed, The",
    ],
)
def test_other_titles_are_unchanged(title: str) -> None:
    assert clean_title(title) == title


def test_only_shared_titles_get_year_then_number() -> None:
    shown = display_titles(
        ["Sabrina", "Chasing Amy", "Sabrina", "Chasing Amy", "Alien"],
        ["1995", "1997", "1954", "1997", "1979"],
    )
    assert shown == [
        "Sabrina (1995)",
        "Chasing Amy (1997)",
        "Sabrina (1954)",
        "Chasing Amy (1997) [2]",
        "Alien",
    ]


def test_titles_without_years_are_numbered_around_given_ones() -> None:
    assert display_titles(["Heat", "heat", "Heat [2]", "Heat"]) == [
        "Heat",
        "heat [3]",
        "Heat [2]",
        "Heat [4]",
    ]


def test_titles_without_cleaning_become_distinct() -> None:
    assert display_titles(["Ring, The", "Ring, The"], ["", "2002"], clean=False) == [
        "Ring, The",
        "Ring, The (2002)",
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Heat", "HEAT", "Heat [2]", "Heat (1995)", "Heat (1995) [2]", "ß"]),
            st.sampled_from(["1995", "1986", ""]),
        )
    )
)
def test_titles_are_distinct_regardless_of_case(pairs: list[tuple[str, str]]) -> None:
    shown = display_titles([title for title, _ in pairs], [year for _, year in pairs])
    assert len({title.casefold() for title in shown}) == len(pairs)
    assert all(new.startswith(old) for new, (old, _) in zip(shown, pairs, strict=True))
