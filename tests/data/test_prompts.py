from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from raypo.assets import tiny_random
from raypo.config.policy import BUILT_IN_PROMPTS
from raypo.data.prompts import load_template, render
from raypo.data.title_tokens import warn_about_other_tokens
from raypo.data.tokenisation import Encoder, load_tokenizer
from raypo.errors import InputError

TITLES = ["To Have, or Not", "The Godfather", "Cité {0} des enfants perdus", "1984 & 2001!"]


def test_built_in_template_is_short_and_ends_without_white_space() -> None:
    template = load_template(None)
    assert template.endswith("Answer:")
    assert len(template) < 120
    assert render(template, TITLES[:2], TITLES[1:]).splitlines() == [
        "Someone chose these, oldest first: To Have, or Not; The Godfather",
        "Which of these did they choose next?",
        "- The Godfather",
        "- Cité {0} des enfants perdus",
        "- 1984 & 2001!",
        "Answer:",
    ]


def test_marks_stand_before_titles_and_hints_where_the_template_has_them() -> None:
    text = render(load_template(None), ["A"], ["B", "C"], ["2:", "1:"], " (ranks by X)")
    assert text.splitlines()[1:4] == [
        "Which of these did they choose next? (ranks by X)",
        "2: B",
        "1: C",
    ]


@pytest.mark.parametrize("name", [name for name in BUILT_IN_PROMPTS if name != "tallrec"])
def test_titles_have_the_same_tokens_in_built_in_prompts_and_in_answers(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = load_tokenizer(tiny_random())
    warn_about_other_tokens(tokenizer, load_template(name), [*TITLES, name])
    assert not caplog.records


def test_a_template_whose_titles_begin_otherwise_than_answers_is_warned_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tokenizer = load_tokenizer(tiny_random())
    template = "They chose\n{history}\nand next one of\n{candidates}\nAnswer:"
    warn_about_other_tokens(tokenizer, template, TITLES)
    (record,) = caplog.records  # candidates have marks before them
    assert "4 of 4 checked titles begin with other tokens in {history}" in record.getMessage()
    warn_about_other_tokens(tokenizer, template, TITLES)
    assert len(caplog.records) == 1


def test_a_custom_template(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("{{json}} {candidates}\nafter {history}\n", encoding="utf-8")
    assert render(load_template(path), ["A", "B"], ["C", "D"]) == "{json} - C\n- D\nafter A; B"


@pytest.mark.parametrize(
    "text",
    [
        "no fields",
        "{candidates}",
        "{history} {candidates} {candidates}",
        "{history} {candidates} {user}",
        "{history} {candidates} {hints} {hints}",
        "{history} {candidates} {}",
        "{history!r} {candidates}",
        "{history:>9} {candidates}",
        "{history.x} {candidates}",
        "{history} {candidates",
        "{history} {candidates} }",
    ],
)
def test_other_fields_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"wrong\.txt"):
        load_template(path)


def test_unreadable_templates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_template(tmp_path / "absent.txt")
    (tmp_path / "latin.txt").write_bytes(b"{history} {candidates} \xe9")
    with pytest.raises(InputError, match="cannot be read"):
        load_template(tmp_path / "latin.txt")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    from transformers import AutoTokenizer

    folder = tiny_random(tmp_path_factory.mktemp("cache"))
    return Encoder(AutoTokenizer.from_pretrained(folder), load_template(None), TITLES)


def test_prompt_is_the_rendered_text(encoder: Encoder) -> None:
    text = render(encoder.template, [TITLES[0]], [TITLES[1], TITLES[3]])
    tokens = encoder.prompt([0], [1, 3])
    assert encoder.decode(tokens) == text
    assert encoder.tokenizer.eos_token_id not in tokens


def test_a_long_prompt_loses_only_its_oldest_history(encoder: Encoder) -> None:
    history = [0, 1, 2, 3] * 5
    full = encoder.prompt(history, [1, 3])
    kept = encoder.prompt(history[4:], [1, 3])
    short = replace(encoder, max_prompt_tokens=len(kept))
    assert short.prompt(history, [1, 3]) == kept and short.cut_prompts == 1
    assert replace(encoder, max_prompt_tokens=len(full)).prompt(history, [1, 3]) == full
    with pytest.raises(InputError, match=r"2 candidates takes \d+ tokens .* more than the 5"):
        replace(encoder, max_prompt_tokens=5).prompt(history, [1, 3])


def test_response_is_the_title_and_end_of_sequence(encoder: Encoder) -> None:
    for item, title in enumerate(TITLES):
        response = encoder.response(item)
        assert response[-1] == encoder.tokenizer.eos_token_id
        assert encoder.decode(response) == " " + title
        assert encoder.response(item) is response


def test_prompt_and_response_meet_at_a_token_boundary(encoder: Encoder) -> None:
    joined_text = render(encoder.template, [TITLES[0]], TITLES) + " " + TITLES[2]
    joined = encoder.prompt([0], range(4)) + encoder.response(2)[:-1]
    assert encoder.tokenizer(joined_text).input_ids == joined


def test_bos_comes_only_from_a_tokenizer_that_adds_it() -> None:
    class Adding:
        eos_token_id = 9

        def __call__(self, text: str, add_special_tokens: bool = True) -> object:
            ids = [1] * add_special_tokens + [ord(letter) for letter in text]
            return type("Encoding", (), {"input_ids": ids})

    encoder = Encoder(Adding(), "{history}{candidates}", ["A", "B"])
    assert encoder.prompt([0], [1]) == [1, *map(ord, "A- B")]
    assert encoder.response(0) == [ord(" "), ord("A"), 9]


def test_an_answer_begins_with_one_space_where_tokenizers_put_one_before_every_text() -> None:
    class Prefixing:
        eos_token_id = 9

        def __call__(self, text: str, add_special_tokens: bool = True) -> object:
            ids = [ord(letter) for letter in f" {text}"]
            return type("Encoding", (), {"input_ids": ids})

    encoder = Encoder(Prefixing(), "{history} {candidates}\nAnswer:", ["A"])
    assert encoder.response(0) == [ord(" "), ord("A"), 9]


def test_the_longest_title_is_not_missed_in_another_script() -> None:
    tokenizer = load_tokenizer(tiny_random())
    titles = [f"The Return of the Long Title, Part {number:09}" for number in range(150)]
    encoder = Encoder(tokenizer, load_template(None), [*titles, "七人の侍" * 8])
    assert encoder.longest_response() == len(encoder.response(150))
    assert len(encoder.response(150)) > len(encoder.response(0))


def test_a_template_of_the_history_alone_lists_no_candidates() -> None:
    from raypo.data.prompts import lists_candidates, load_template, render

    template = load_template("history")
    assert not lists_candidates(template) and lists_candidates(load_template(None))
    assert render(template, ["Alien", "Heat"], ["Fargo"]).split("\n")[0].endswith("Alien; Heat")
    assert "Fargo" not in render(template, ["Alien"], ["Fargo"])
